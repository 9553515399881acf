"""hwgle: a hardware-in-the-loop emulator for neuromorphic chips that run GLE."""
