"""Scheduling without effects: jobs, limits, costs, policy and the scheduler."""
