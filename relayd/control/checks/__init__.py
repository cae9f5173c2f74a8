"""Active health checks (T2), in the control process: `checker` is what others use.

    subjects ──▶ schedule ──due──▶ probe (a socket) ──────found──▶ standing ──▶ TARGET_UP, TARGET_DOWN, on_change
                    ▲              command (a process)                │
                    └──────────────── due again ──────────────────────┘

Pure: `subject` (whom to ask), `schedule` (when), `answers` (what is said, and what the answer means), `standing` (up or
down, and why), `left` (what the next life has to know). Shells: `probe`, `command`, `checker`, and
`patterns` (a search that ends).
"""
