//! Seccomp profiles to BPF programs, compiled once per profile.
