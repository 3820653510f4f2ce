"""What tests of several folders use, beside the fixtures of conftest.py."""
