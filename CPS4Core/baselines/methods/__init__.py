"""What stage 2 can train instead of CPS4: one file a system."""
