"""Arrays in, arrays out: what a backend computes better than `keras.ops`. No layer comes in."""
