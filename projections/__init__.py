"""Pure folds and decisions: state, INITIAL, apply, decide; one file per state."""
