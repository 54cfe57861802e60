"""How well the reward model predicts what people liked, against a bag of words on the same folds."""
