//! The table itself, in the order of help: what `run`, `create` and `exec` take, then what only Docker's take.

use super::{
    CREATE, Choice, EXEC, Flag, ProgramArgs, RUN, Refused, Takes,
    program::{PreferChoice, PullPolicy},
};
use clap::{ValueEnum, builder::EnumValueParser};

pub(super) static FLAGS: &[Flag] = &[
    switch("detach", |args| &mut args.detach)
        .short('d')
        .of(RUN, "Run in the background and print the container's id")
        .of(EXEC, "Run in the background"),
    texts("attach", "list", |args| &mut args.attach).short('a').help("Attach only to these: stdin, stdout, stderr"),
    text("detach-keys", "string", |args| &mut args.detach_keys)
        .of(RUN, "Keys that leave a container with a terminal running, instead of ctrl-p,ctrl-q"),
    text("sig-proxy", "bool", |args| &mut args.sig_proxy)
        .of(RUN, "Pass signals on to the program (true), where it has no terminal"),
    switch("timings", |args| &mut args.timings).of(RUN, "Print how long each stage of the start took").hidden(),
    texts("add-host", "list", |args| &mut args.add_host).help("Name and address for /etc/hosts: name:ip"),
    texts("allow-net", "list", |args| &mut args.allow_net)
        .help("Destinations that a Wasm program may connect to, and no others: HOST:PORT, *.NAME, NETWORK/BITS"),
    text("blkio-weight", "uint16", |args| &mut args.blkio_weight).help("Weight of block I/O, from 10 to 1000"),
    texts("blkio-weight-device", "list", |args| &mut args.blkio_weight_device)
        .help("Weight of block I/O on one device, from 10 to 1000: DEVICE:WEIGHT"),
    flag("cacert", Takes::Files("file", |args| &mut args.cacert))
        .help("Certificates that a Wasm program trusts for TLS, beside the machine's"),
    texts("cap-add", "list", |args| &mut args.cap_add).help("Add a Linux capability"),
    texts("cap-drop", "list", |args| &mut args.cap_drop).help("Drop a Linux capability"),
    flag("cidfile", Takes::File("file", |args| &mut args.cidfile)).help("Write the container's id to this file"),
    text("component", "string", |args| &mut args.component).help("Component of a Spin application that is to run"),
    texts("config", "list", |args| &mut args.config)
        .help("Value that a Wasm program asks for by wasi:config: NAME=VALUE"),
    flag("config-file", Takes::Files("list", |args| &mut args.config_file))
        .help("Read such values from a file, one a line"),
    flag("coredump", Takes::File("dir", |args| &mut args.coredump))
        .help("Folder for core dumps of a Wasm program that does not end by itself"),
    text("cpu-period", "int", |args| &mut args.cpu_period).help("Period of the CPU quota, in microseconds"),
    text("cpu-quota", "int", |args| &mut args.cpu_quota)
        .negative()
        .help("CPU time in each period, in microseconds; -1 for unlimited"),
    text("cpu-rt-period", "int", |args| &mut args.cpu_rt_period)
        .help("Period for real-time threads, in microseconds (cgroup v1)"),
    text("cpu-rt-runtime", "int", |args| &mut args.cpu_rt_runtime)
        .help("Time for real-time threads in each period, in microseconds (cgroup v1)"),
    text("cpu-shares", "int", |args| &mut args.cpu_shares)
        .short('c')
        .help("CPU weight against other containers (1024 is usual)"),
    text("cpus", "decimal", |args| &mut args.cpus).help("Number of CPUs, such as 0.5"),
    text("cpuset-cpus", "string", |args| &mut args.cpuset_cpus).help("CPUs in which to run, such as 0-3 or 0,1"),
    text("cpuset-mems", "string", |args| &mut args.cpuset_mems)
        .help("Memory nodes in which to run, such as 0-3 or 0,1"),
    texts("device", "list", |args| &mut args.device)
        .help("Let it use a device of the host: HOST[:CONTAINER][:rwm], or vendor.com/class=name"),
    texts("device-cgroup-rule", "list", |args| &mut args.device_cgroup_rule)
        .help("Devices of which it may make nodes that work, such as 'c 188:* rwm'"),
    texts("device-read-bps", "list", |args| &mut args.device_read_bps)
        .help("Limit of bytes a second read from a device: DEVICE:RATE"),
    texts("device-read-iops", "list", |args| &mut args.device_read_iops)
        .help("Limit of reads a second from a device: DEVICE:RATE"),
    texts("device-write-bps", "list", |args| &mut args.device_write_bps)
        .help("Limit of bytes a second written to a device: DEVICE:RATE"),
    texts("device-write-iops", "list", |args| &mut args.device_write_iops)
        .help("Limit of writes a second to a device: DEVICE:RATE"),
    texts("dns", "list", |args| &mut args.dns).help("Name server, instead of the host's"),
    texts("dns-option", "list", |args| &mut args.dns_option).help("Option of name resolution"),
    texts("dns-search", "list", |args| &mut args.dns_search).help("Domain in which names are looked up"),
    text("domainname", "string", |args| &mut args.domainname).help("Domain name inside the container"),
    text("entrypoint", "string", |args| &mut args.entrypoint).help("Replace the image's entrypoint"),
    texts("env", "list", |args| &mut args.env)
        .short('e')
        .help_everywhere("Set an environment variable, or pass on the caller's"),
    flag("env-file", Takes::Files("list", |args| &mut args.env_file))
        .help_everywhere("Read environment variables from a file"),
    switch("explain-grants", |args| &mut args.explain_grants)
        .of(RUN, "Print the shortest command line that would run the image, and what its imports would make use of"),
    texts("expose", "list", |args| &mut args.expose)
        .help("Port that it serves, such as 80 or 53/udp: shown, and published by -P"),
    text("fuel", "int", |args| &mut args.fuel).help("Instructions that a Wasm program may execute"),
    text("gpus", "gpu-request", |args| &mut args.gpus)
        .help("Let it use GPUs: all, a number, or device=ID (CDI nvidia.com/gpu)"),
    // So help has only its long form with these commands, as with Docker.
    text("hostname", "string", |args| &mut args.hostname).short('h').help("Host name inside the container"),
    text("isolation", "string", |args| &mut args.isolation).help("Only default, as everywhere but on Windows").hidden(),
    switch("init", |args| &mut args.init)
        .help("Run the program under an init that passes signals on and reaps processes"),
    switch("interactive", |args| &mut args.interactive).short('i').help_everywhere("Keep standard input open"),
    text("invoke", "call", |args| &mut args.invoke)
        .help("Call one function of a Wasm program, such as 'f(1, \"x\")', and print its results"),
    text("ip", "string", |args| &mut args.ip).help("IPv4 address on the first network"),
    text("ip6", "string", |args| &mut args.ip6).help("IPv6 address on the first network"),
    texts("kv", "list", |args| &mut args.kv)
        .help("Key-value store of a Wasm program, in memory or kept in a volume: NAME[=VOLUME][:size=BYTES]"),
    texts("label", "list", |args| &mut args.label).short('l').help("Set a label"),
    text("memory", "bytes", |args| &mut args.memory).short('m').help("Memory limit, such as 128m or 1g"),
    text("memory-reservation", "bytes", |args| &mut args.memory_reservation)
        .help("What it gets back first when memory is short"),
    text("memory-swap", "bytes", |args| &mut args.memory_swap)
        .negative()
        .help("Limit of memory and swap together, -1 for unlimited swap"),
    text("memory-swappiness", "int", |args| &mut args.memory_swappiness)
        .negative()
        .help("How readily its memory is swapped, from 0 to 100 (cgroup v1)"),
    texts("mount", "mount", |args| &mut args.mount).help("Mount a directory, a volume or memory"),
    text("name", "string", |args| &mut args.name).help("Name of the container"),
    text("mac-address", "string", |args| &mut args.mac_address).help("Hardware address on the first network"),
    texts("network", "network", |args| &mut args.network)
        .alias("net")
        .help("Network: none, host, bridge, container:CONTAINER, or one of your own; several"),
    texts("network-alias", "list", |args| &mut args.network_alias).help("Another name on the first network"),
    text("pids-limit", "int", |args| &mut args.pids_limit)
        .negative()
        .help("Limit of processes and threads, -1 for unlimited"),
    text("platform", "string", |args| &mut args.platform)
        .help("Platform to choose from a multi-platform image, such as wasi/wasm"),
    choice("prefer", "kind", &PREFER).help("Kind to choose where an image has both"),
    switch("privileged", |args| &mut args.privileged)
        .help("Give all capabilities and devices")
        .of(EXEC, "Give the command all capabilities"),
    texts("publish", "list", |args| &mut args.publish)
        .short('p')
        .help("Publish a port of the container on the host: [[ip:]host:]container[/udp]"),
    switch("publish-all", |args| &mut args.publish_all)
        .short('P')
        .help("Publish all ports that the image exposes on free ports of the host"),
    choice("pull", "policy", &PULL).help("When to ask the registry"),
    switch("quiet", |args| &mut args.quiet).short('q').help("Say nothing of what is pulled"),
    switch("read-only", |args| &mut args.read_only).help("Make the root file system read-only"),
    text("restart", "policy", |args| &mut args.restart)
        .help("When to start it again: no, on-failure[:TIMES], always, unless-stopped"),
    text("reuse", "int", |args| &mut args.reuse)
        .help("Requests that one instance of a Wasm function answers, one after another (1)"),
    switch("rm", |args| &mut args.rm).help("Remove the container when it ends"),
    texts("security-opt", "list", |args| &mut args.security_opt)
        .help("Security options: no-new-privileges, seccomp=unconfined|builtin|FILE"),
    text("stop-signal", "signal", |args| &mut args.stop_signal).help("Signal that asks the container to stop"),
    text("stop-timeout", "seconds", |args| &mut args.stop_timeout)
        .negative()
        .help("Seconds between the stop signal and SIGKILL, -1 to wait for ever"),
    text("timeout", "duration", |args| &mut args.timeout).help("Stop after this time, such as 10s or 1m30s"),
    texts("tmpfs", "list", |args| &mut args.tmpfs).help("Mount memory at a directory, such as /run:size=64m"),
    switch("tty", |args| &mut args.tty)
        .short('t')
        .help("Give the container a terminal")
        .of(EXEC, "Give the command a terminal"),
    texts("ulimit", "ulimit", |args| &mut args.ulimit).help("Resource limit, such as nofile=1024:2048"),
    text("user", "string", |args| &mut args.user)
        .short('u')
        .help_everywhere("User, as name or uid, and maybe group: name[:group]"),
    texts("volume", "list", |args| &mut args.volume)
        .short('v')
        .help("Mount a directory or a volume: source:target[:ro]"),
    text("volume-driver", "string", |args| &mut args.volume_driver).help("Only local").hidden(),
    texts("volumes-from", "list", |args| &mut args.volumes_from)
        .help("Mount what another container has mounted: CONTAINER[:ro]"),
    texts("wasm", "list", |args| &mut args.wasm)
        .help("Proposals for WebAssembly that the program may use, such as stack-switching,wide-arithmetic"),
    text("workdir", "string", |args| &mut args.workdir)
        .short('w')
        .help_everywhere("Working directory inside the container"),
    texts("annotation", "map", |args| &mut args.annotation).help("Note NAME=VALUE, as inspect shows it"),
    text("cgroup-parent", "string", |args| &mut args.cgroup_parent)
        .help("Cgroup in which its own lies, such as /batch"),
    text("cgroupns", "string", |args| &mut args.cgroupns).help("Cgroup namespace: private (the default) or host"),
    texts("group-add", "list", |args| &mut args.group_add).help("Groups beside the user's own, by name or number"),
    text("health-cmd", "string", |args| &mut args.health_cmd).help("Command that tells whether it is well"),
    text("health-http", "port", |args| &mut args.health_http)
        .help("Port, and maybe path, that is asked by HTTP whether it is well: 80/health"),
    text("health-interval", "duration", |args| &mut args.health_interval).help("Time between two checks (30s)"),
    text("health-retries", "int", |args| &mut args.health_retries).help("How many checks in a row have to fail (3)"),
    text("health-start-interval", "duration", |args| &mut args.health_start_interval)
        .help("Time between two checks while it starts (5s)"),
    text("health-start-period", "duration", |args| &mut args.health_start_period)
        .help("Time in which failed checks do not count (0s)"),
    text("health-tcp", "port", |args| &mut args.health_tcp).help("Port that takes connections when it is well"),
    text("health-timeout", "duration", |args| &mut args.health_timeout).help("Time that a check may take (30s)"),
    text("ipc", "string", |args| &mut args.ipc)
        .help("IPC namespace: private (the default), shareable, none (no /dev/shm), host, or container:CONTAINER"),
    flag("label-file", Takes::Files("list", |args| &mut args.label_file)).help("Read labels from a file"),
    text("log-driver", "string", |args| &mut args.log_driver)
        .help("How its output is kept: json-file (the default, here at most 2 files of 16m), local, journald, none"),
    texts("log-opt", "list", |args| &mut args.log_opt)
        .help("Bounds of the log, and what logs --details tells: max-size=SIZE, max-file=NUMBER, labels=, env=, tag="),
    switch("no-healthcheck", |args| &mut args.no_healthcheck).help("Check its health by no command"),
    switch("oom-kill-disable", |args| &mut args.oom_kill_disable)
        .help("Let it wait for memory instead of killing it (cgroup v1)"),
    text("oom-score-adj", "int", |args| &mut args.oom_score_adj)
        .negative()
        .help("How soon it is killed when the machine has no memory, from -1000 to 1000"),
    text("pid", "string", |args| &mut args.pid)
        .help("PID namespace: private (the default), host, or container:CONTAINER"),
    text("shm-size", "bytes", |args| &mut args.shm_size).help("Size of /dev/shm (64m)"),
    texts("sysctl", "map", |args| &mut args.sysctl).help("Setting of its namespaces: NAME=VALUE"),
    text("userns", "string", |args| &mut args.userns).help("User namespace: host, which is that of all containers"),
    text("uts", "string", |args| &mut args.uts).help("UTS namespace: private (the default) or host"),
];

/// Docker's options of `run`, `create` and `exec` that are not here, each with what to do instead, or with nothing.
pub(super) static REFUSED: &[Refused] = &[
    refused("link", None, "; containers on a network of your own find each other by name (--network NAME)"),
    refused("disable-content-trust", None, ": no signatures are asked for; leave it out"),
    refused("cpu-count", None, ": Windows alone has it; --cpus is there"),
    refused("cpu-percent", None, ": Windows alone has it; --cpus is there"),
    refused("io-maxbandwidth", None, ": Windows alone has it; --device-read-bps and its siblings are there"),
    refused("io-maxiops", None, ": Windows alone has it; --device-read-iops and its siblings are there"),
    refused("kernel-memory", None, ": the kernel has no such limit any more; -m counts that memory too"),
    refused("runtime", None, "; amphora runs both kinds itself (--platform, --prefer)"),
    refused(
        "storage-opt",
        None,
        ": no file system is made for a container, so its size has no bound of its own; -v mounts one that has",
    ),
    refused("use-api-socket", None, ": there is no daemon, and no socket of one"),
];

static PREFER: Choice = Choice {
    default: "linux",
    parser: || EnumValueParser::<PreferChoice>::new().into(),
    set: |args, value| PreferChoice::from_str(value, false).ok().map(|prefer| args.prefer = prefer),
};
static PULL: Choice = Choice {
    default: "missing",
    parser: || EnumValueParser::<PullPolicy>::new().into(),
    set: |args, value| PullPolicy::from_str(value, false).ok().map(|pull| args.pull = pull),
};

const fn flag(long: &'static str, takes: Takes) -> Flag {
    Flag { long, alias: None, short: None, takes, help: [None; 3], hidden: false, negative: false }
}

const fn switch(long: &'static str, place: fn(&mut ProgramArgs) -> &mut bool) -> Flag {
    flag(long, Takes::Switch(place))
}

const fn text(long: &'static str, value: &'static str, place: fn(&mut ProgramArgs) -> &mut Option<String>) -> Flag {
    flag(long, Takes::Text(value, place))
}

const fn texts(long: &'static str, value: &'static str, place: fn(&mut ProgramArgs) -> &mut Vec<String>) -> Flag {
    flag(long, Takes::Texts(value, place))
}

const fn choice(long: &'static str, value: &'static str, choice: &'static Choice) -> Flag {
    flag(long, Takes::Choice(value, choice))
}

const fn refused(long: &'static str, short: Option<char>, instead: &'static str) -> Refused {
    Refused { long, short, instead }
}

impl Flag {
    const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    const fn alias(self, long: &'static str) -> Self {
        Self { alias: Some(long), ..self }
    }

    const fn negative(self) -> Self {
        Self { negative: true, ..self }
    }

    const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// An option of `run` and `create`.
    const fn help(self, help: &'static str) -> Self {
        self.of(RUN, help).of(CREATE, help)
    }

    const fn help_everywhere(self, help: &'static str) -> Self {
        self.help(help).of(EXEC, help)
    }

    const fn of(mut self, command: u8, help: &'static str) -> Self {
        self.help[command as usize] = Some(help);
        self
    }
}
