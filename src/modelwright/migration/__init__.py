"""Moving code written for transformers 4.x here: where each name lives, what an import becomes, what is left to do."""
