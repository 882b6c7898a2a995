use super::*;
use crate::cgroup::resources::Further;

const DISK: Device = Device { major: 8, minor: 16 };

fn everything() -> Resources {
    Resources {
        memory_bytes: Some(64 << 20),
        memory_swap_bytes: Some(96 << 20),
        cpu_shares: Some(1024),
        cpuset_cpus: Some("0-1".into()),
        pids: Some(u64::MAX),
        further: Further {
            memory_reservation_bytes: Some(32 << 20),
            cpu_quota_usec: Some(30_000),
            cpu_period_usec: Some(60_000),
            cpu_burst_usec: Some(10_000),
            cpu_idle: Some(true),
            cpuset_mems: Some("0".into()),
            io_weight: Some(500),
            io_weight_devices: vec![(DISK, 10)],
            io_throttle: vec![(DISK, Rate::ReadBytes, 1 << 20), (DISK, Rate::Writes, u64::MAX)],
            hugepages: vec![("2MB".into(), 4 << 20)],
            rdma: vec![("mlx5_1".into(), Some(3), None)],
            ..Further::default()
        },
        ..Resources::default()
    }
}

fn lines(settings: Vec<Setting>) -> Vec<String> {
    let line = |setting: Setting| {
        let instead = setting.instead.map(|(file, value)| format!(" or {file}={value}")).unwrap_or_default();
        format!("{}={}{instead}", setting.file, setting.value)
    };
    settings.into_iter().map(line).collect()
}

#[test]
fn everything_on_v2() {
    let expected = [
        "memory.max=67108864",
        "memory.swap.max=33554432",
        "memory.low=33554432",
        "cpu.max=30000 60000",
        "cpu.max.burst=10000",
        "cpu.weight=100",
        "cpu.idle=1",
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
        "pids.max=max",
        "io.bfq.weight=500 or io.weight=4950",
        "io.bfq.weight=8:16 10 or io.weight=8:16 1",
        "io.max=8:16 rbps=1048576",
        "io.max=8:16 wiops=max",
        "hugetlb.2MB.max=4194304",
        "rdma.max=mlx5_1 hca_handle=3",
        "memory.high=1000",
    ];
    let mut wanted = everything();
    wanted.further.unified.insert("memory.high".into(), "1000".into());
    assert_eq!(lines(v2(&wanted)), expected);
    assert!(refused(&wanted, true).is_empty());
}

#[test]
fn everything_on_v1() {
    let expected = [
        "memory.limit_in_bytes=67108864",
        "memory.memsw.limit_in_bytes=100663296",
        "memory.soft_limit_in_bytes=33554432",
        "memory.swappiness=10",
        "memory.oom_control=1",
        "cpu.cfs_period_us=60000",
        "cpu.cfs_quota_us=30000",
        "cpu.cfs_burst_us=10000",
        "cpu.shares=1024",
        "cpu.idle=1",
        "cpu.rt_period_us=1000000",
        "cpu.rt_runtime_us=1000",
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
        "pids.max=max",
        "blkio.bfq.weight=500 or blkio.weight=500",
        "blkio.bfq.weight_device=8:16 10 or blkio.weight_device=8:16 10",
        "blkio.throttle.read_bps_device=8:16 1048576",
        "blkio.throttle.write_iops_device=8:16 0",
        "hugetlb.2MB.limit_in_bytes=4194304",
        "net_cls.classid=1048577",
        "net_prio.ifpriomap=lo 3",
        "rdma.max=mlx5_1 hca_handle=3",
    ];
    let mut wanted = everything();
    let further = &mut wanted.further;
    (further.memory_swappiness, further.oom_killer_disabled) = (Some(10), true);
    (further.cpu_realtime_period_usec, further.cpu_realtime_runtime_usec) = (Some(1_000_000), Some(1000));
    (further.network_class, further.network_priorities) = (Some(0x0010_0001), vec![("lo".into(), 3)]);
    assert_eq!(lines(v1(&wanted)), expected);
    assert!(refused(&wanted, false).is_empty());
    assert_eq!(refused(&wanted, true).len(), 5, "{:?}", refused(&wanted, true));
}

#[test]
fn what_run_asks_for_is_all_that_is_written() {
    assert!(v1(&Resources::default()).is_empty() && v2(&Resources::default()).is_empty());
    let memory = Resources { memory_bytes: Some(64 << 20), ..Resources::default() };
    assert_eq!(lines(v2(&memory)), ["memory.max=67108864", "memory.swap.max=0"]);
    assert!(v2(&memory)[1].optional && v1(&memory)[1].optional);
    let swap = Resources { memory_swap_bytes: Some(65 << 20), ..memory.clone() };
    assert!(!v2(&swap)[1].optional && !v1(&swap)[1].optional);
    let unlimited = Resources { memory_swap_bytes: Some(u64::MAX), ..memory };
    assert_eq!(lines(v2(&unlimited))[1], "memory.swap.max=max");
    let cpu = Resources { cpu_millis: Some(1500), ..Resources::default() };
    assert_eq!(lines(v2(&cpu)), ["cpu.max=150000 100000"]);
    assert_eq!(lines(v1(&cpu)), ["cpu.cfs_quota_us=150000"]);
}
