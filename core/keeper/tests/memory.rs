//! What a waiting keeper costs.

mod harness;

use harness::*;

#[test]
fn an_idle_keeper_is_small() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let null = std::fs::File::open("/dev/null").unwrap();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&null);
    let answer = keeper.create(&bundle, &script(&bundle, "sleep 1000"), 0, &[raw]);
    answer.created();
    keeper.start().started();
    // It gives its code back after a while without work; how long that takes is not the point.
    let path = format!("/proc/{}/smaps_rollup", keeper.process.id());
    let mut kilobytes = u32::MAX;
    for _ in 0..100 {
        let text = std::fs::read_to_string(&path).unwrap();
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        kilobytes = kilobytes.min(pss.trim().trim_end_matches(" kB").parse().unwrap());
        if kilobytes <= 24 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!("idle: {kilobytes} kB");
    assert!(kilobytes <= 24, "{kilobytes} kB");
    keeper.shut_down();
}
