"""Long tests of reliability, for an idle machine: kills, odd inputs, endurance. See docs/reliability.md."""
