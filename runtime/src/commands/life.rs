//! `pause`, `unpause`, `rename` and `update`.

use anyhow::Result;

use super::{each, find};
use crate::{
    cli::{PauseArgs, RenameArgs, UpdateArgs},
    lifecycle::{
        pause,
        update::{self, Changes},
    },
    output,
    records::host::Host,
    spec::{
        limits::{self, CpuList},
        restart::RestartPolicy,
    },
};

/// `amphora pause`.
pub(crate) fn pause(host: &Host, args: &PauseArgs) -> Result<u8> {
    each(&args.containers, |name| pause::pause(&find(host, name)?).and_then(|()| output::say(name)))
}

/// `amphora unpause`.
pub(crate) fn unpause(host: &Host, args: &PauseArgs) -> Result<u8> {
    each(&args.containers, |name| pause::unpause(&find(host, name)?).and_then(|()| output::say(name)))
}

/// `amphora rename`.
pub(crate) fn rename(host: &Host, args: &RenameArgs) -> Result<u8> {
    update::rename(host, &find(host, &args.container)?, &args.name).map(|()| 0)
}

/// `amphora update`.
pub(crate) fn update(host: &Host, args: &UpdateArgs) -> Result<u8> {
    let changes = changes(args)?;
    each(&args.containers, |name| {
        update::update(host, &find(host, name)?, &changes)?;
        output::say(name)
    })
}

fn changes(args: &UpdateArgs) -> Result<Changes> {
    let online = CpuList::online;
    Ok(Changes {
        memory_bytes: args.memory.as_deref().map(limits::parse_memory).transpose()?,
        memory_swap_bytes: args.memory_swap.as_deref().map(limits::parse_memory_swap).transpose()?,
        memory_reservation_bytes: args
            .memory_reservation
            .as_deref()
            .map(limits::parse_memory_reservation)
            .transpose()?,
        cpu_millis: args.cpus.as_deref().map(|text| limits::parse_cpus(text, online().count())).transpose()?,
        cpu_period_usec: args
            .cpu_period
            .as_deref()
            .map(|text| limits::parse_cpu_usec("--cpu-period", text))
            .transpose()?,
        cpu_quota_usec: args
            .cpu_quota
            .as_deref()
            .map(|text| limits::parse_cpu_usec("--cpu-quota", text))
            .transpose()?,
        cpu_shares: args.cpu_shares.as_deref().map(limits::parse_cpu_shares).transpose()?,
        cpuset_cpus: args.cpuset_cpus.as_deref().map(|text| limits::parse_cpuset_cpus(text, &online())).transpose()?,
        cpuset_mems: args.cpuset_mems.as_deref().map(limits::parse_cpuset_mems).transpose()?,
        pids: args.pids_limit.as_deref().map(limits::parse_pids).transpose()?,
        blkio_weight: args.blkio_weight.as_deref().map(limits::parse_blkio_weight).transpose()?,
        restart: args.restart.as_deref().map(RestartPolicy::parse).transpose()?,
    })
}
