"""Floor 5: the long-lived tasks and how they are composed."""
