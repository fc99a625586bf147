"""What K2 costs: a function of measured figures and dated list prices."""
