"""`avel pretrain`: AV-BT, from a clip store to trained encoders."""
