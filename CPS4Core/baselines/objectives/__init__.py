"""What stage 1 can train by instead of CPS4: one file a system."""
