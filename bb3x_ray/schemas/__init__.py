"""The vocabulary: what passes between rooms. Plain frozen records and their Arrow schemas."""
