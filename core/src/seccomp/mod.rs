//! Seccomp profiles to BPF programs, compiled once per profile.
pub struct Program {
    pub bpf: Vec<u8>,
    pub flags: u64,
}
#[derive(Default)]
pub struct Cache;
impl Cache {
    pub fn compile(
        &self,
        _: &crate::spec::oci::LinuxSeccomp,
    ) -> crate::Result<std::sync::Arc<Program>> {
        Ok(std::sync::Arc::new(Program { bpf: vec![], flags: 0 }))
    }
}
