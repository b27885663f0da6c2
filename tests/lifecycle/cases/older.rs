//! The same on kernels that lack a system call, or behind a filter that hides it.

use locule_lifecycle::prelude::*;

use super::{hostile, mounts};

pub const CASES: &[Case] = cases![
    without_openat2_links_of_the_image_are_confined_all_the_same,
    without_openat2_a_root_that_changes_meanwhile_leads_nothing_outside,
    without_openat2_mounts_are_what_they_are,
    without_mount_setattr_options_of_single_mounts_have_their_effect,
    without_mount_setattr_an_option_for_a_tree_is_refused,
];

/// Makes system calls unknown to this process and all that come from it.
fn hide(calls: &[libc::c_long]) {
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let load_number = statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0);
    let mut program = vec![load_number];
    for call in calls {
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        program.push(libc::sock_filter { code, jt: 0, jf: 1, k: *call as u32 });
        let answer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        program.push(statement((libc::BPF_RET | libc::BPF_K) as u16, answer));
    }
    program.push(statement((libc::BPF_RET | libc::BPF_K) as u16, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is there for as long as the call takes; this process has one thread.
    let rc = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    assert_eq!(rc, 0, "install a filter: {}", std::io::Error::last_os_error());
}

fn without_openat2(t: &Test) {
    t.need_root();
    hide(&[libc::SYS_openat2]);
}

fn without_openat2_links_of_the_image_are_confined_all_the_same(t: &Test) {
    without_openat2(t);
    hostile::masks_and_devices_follow_links_inside_the_root_only(t);
}

fn without_openat2_a_root_that_changes_meanwhile_leads_nothing_outside(t: &Test) {
    without_openat2(t);
    hostile::a_root_that_changes_meanwhile_leads_nothing_outside(t);
}

fn without_openat2_mounts_are_what_they_are(t: &Test) {
    without_openat2(t);
    hostile::a_link_of_the_image_leads_no_mount_over_proc(t);
    mounts::files_sockets_and_fifos_can_be_bound_and_write_protected(t);
    mounts::a_read_only_tmpfs_still_takes_the_mounts_in_it(t);
    mounts::a_remount_changes_a_mount_and_its_filesystem(t);
}

fn without_mount_setattr_options_of_single_mounts_have_their_effect(t: &Test) {
    t.need_root();
    hide(&[libc::SYS_mount_setattr]);
    mounts::each_option_of_a_bind_mount_has_its_effect(t);
    mounts::a_remount_changes_a_mount_and_its_filesystem(t);
}

fn without_mount_setattr_an_option_for_a_tree_is_refused(t: &Test) {
    t.need_root();
    hide(&[libc::SYS_mount_setattr]);
    let mut spec = t.spec(&["/bin/true"]);
    let mount = json!({ "destination": "/mnt", "source": t.dir, "options": ["rbind", "rro"] });
    spec["mounts"].as_array_mut().unwrap().push(mount);
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Unsupported, Stage::Mounts).at("/mounts/7").says("mount_setattr");
}
