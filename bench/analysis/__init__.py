"""What a recording shows and sounds like, told by decoding it, without believing anything that its maker says of it."""
