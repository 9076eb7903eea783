"""Raw clips -> staged frames and spectrograms -> AV-BT encoders -> cached features."""
