"""The anytime server: deadlines obeyed while it computes, and a map at every exit.

Its core (`jobs, budgets, terms, timeline, costs, policy, scheduler`) is pure and decides;
everything else carries out. See ARCHITECTURE.md.
"""
