"""Episodes: playing them, measuring a policy by them, filming them, and showing recorded ones again."""
