//! Spec and facts about the host in, plan out: pure, without privilege and system calls.

/// What the compiler has to know about the machine and the caller.
#[derive(Debug, Clone)]
pub struct HostFacts {}

/// What happens when the container starts, as data.
#[derive(Debug, Clone)]
pub struct Plan {}

impl Plan {
    /// The plan for people, a line a step.
    pub fn to_text(&self) -> String {
        todo!()
    }
    /// The plan as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        todo!()
    }
}
