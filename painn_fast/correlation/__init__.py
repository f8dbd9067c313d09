"""Time correlation functions of series that arrive step by step."""
