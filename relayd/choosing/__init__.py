"""Who gets the next client: the choice among the targets of a listener, and what it depends on. Pure.

Workers choose by it, and the control process can say how they would.
"""
