"""One static page about runs: numbers, charts, and a browser of the clips behind them."""
