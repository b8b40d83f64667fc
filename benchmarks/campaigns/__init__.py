"""What `faults.py` is made of: files spoiled and read again, runs killed, stopped, starved and watched."""
