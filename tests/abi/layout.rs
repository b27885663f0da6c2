//! The structs of `include/locule.h` have the layout that the library was compiled with, and
//! no padding, which could carry garbage past the check of newer fields.

use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use locule_ffi::buf::locule_buf;
use locule_ffi::container::{locule_create_opts, locule_exec_opts, locule_watch_opts};
use locule_ffi::image::locule_image_store_opts;
use locule_ffi::image_opts::{locule_image_opts, locule_image_progress};
use locule_ffi::options::locule_stdio;
use locule_ffi::plugin::locule_plugin_opts;
use locule_ffi::process::locule_exit;
use locule_ffi::runtime::locule_runtime_opts;
use locule_ffi::spec::locule_spec_opts;

struct Layout {
    name: &'static str,
    size: usize,
    align: usize,
    /// Name, offset and size of each field.
    fields: Vec<(&'static str, usize, usize)>,
}

macro_rules! layout {
    ($name:ident { $($field:ident),* $(,)? }) => {
        Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            align: align_of::<$name>(),
            fields: vec![$({
                fn size_of_field<T>(_: impl Fn(&$name) -> &T) -> usize { size_of::<T>() }
                (stringify!($field), offset_of!($name, $field), size_of_field(|it| &it.$field))
            }),*],
        }
    };
}

fn layouts() -> Vec<Layout> {
    vec![
        layout!(locule_buf { data, len }),
        layout!(locule_stdio { kind, fd }),
        layout!(locule_exit { size, kind, code, signal, core_dumped }),
        layout!(locule_runtime_opts {
            size,
            flags,
            state_dir,
            keeper_path,
            cgroup_manager,
            reserved,
            plugins,
            plugin_count,
            plugin_dir,
            plugin_rules_json,
            plugin_rules_json_len,
            plugin_log,
            plugin_log_user,
            plugin_log_release,
        }),
        layout!(locule_plugin_opts {
            size,
            flags,
            name,
            stages,
            priority,
            on_failure,
            handle,
            judge,
            user,
            release,
        }),
        layout!(locule_image_store_opts { size, flags, path }),
        layout!(locule_image_progress { size, step, finished, digest, done, total }),
        layout!(locule_image_opts {
            size,
            flags,
            name,
            from,
            platform,
            progress,
            progress_user,
            cancel,
            timeout_ms,
            compression,
            username,
            password,
            auth_file,
            ca_file,
            registries_file,
            config_json,
            config_json_len,
            author,
            comment,
            created,
            max_bytes,
            max_entries,
            max_ratio,
            owner,
            reserved,
        }),
        layout!(locule_watch_opts { size, flags, kind, resource, stall_us, window_us }),
        layout!(locule_spec_opts {
            size,
            flags,
            args,
            env,
            cwd,
            hostname,
            rootfs,
            uid,
            gid,
            memory_bytes,
            cpu_milli,
            pids,
        }),
        layout!(locule_create_opts {
            size,
            flags,
            id,
            bundle,
            spec_json,
            spec_json_len,
            stdio,
            parentage,
            timeout_ms,
            pass_fds,
            pass_fd_count,
            cancel,
            seccomp_listener,
            lower,
            lower_count,
            changes,
            image,
            image_overrides_json,
            image_overrides_json_len,
        }),
        layout!(locule_exec_opts {
            size,
            flags,
            process_json,
            process_json_len,
            stdio,
            timeout_ms,
            reserved,
            pass_fds,
            pass_fd_count,
            cancel,
            seccomp_listener,
        }),
    ]
}

#[test]
fn c_sees_the_sizes_and_offsets_that_rust_has() {
    let mut source = String::from("#include \"locule.h\"\n");
    for Layout { name, size, align, fields } in layouts() {
        source += &format!("_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
        source += &format!("_Static_assert(_Alignof(struct {name}) == {align}, \"{name}\");\n");
        for (field, offset, _) in fields {
            source += &format!(
                "_Static_assert(offsetof(struct {name}, {field}) == {offset}, \"{name}.{field}\");\n"
            );
        }
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout.c");
    std::fs::write(&file, source).expect("write layout.c");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new("cc")
        .args(["-std=c11", "-fsyntax-only", "-I"])
        .arg(root.join("include"))
        .arg(&file)
        .output()
        .expect("run cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn structs_have_no_padding_and_no_field_that_this_test_forgets() {
    for Layout { name, size, fields, .. } in layouts() {
        let mut end = 0;
        for (field, offset, field_size) in fields {
            assert_eq!(offset, end, "{name}.{field}");
            end = offset + field_size;
        }
        assert_eq!(size, end, "{name}");
    }
}
