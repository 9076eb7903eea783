"""Commands that need encoders and heads together: demo, predict, reproduce, leaderboard, doctor."""
