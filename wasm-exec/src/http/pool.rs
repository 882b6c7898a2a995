//! Where the memories, tables and stacks of a function's instances come from: places that are reserved once and used again.

use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Core instances that a component may be made of: its own modules, adapters, and the shims between them.
const CORE_INSTANCES: u32 = 20;
/// Linear memories of one instance; nearly all have one.
const MEMORIES: u32 = 4;
const TABLES: u32 = 8;
/// A large interpreter has some ten thousand functions in its table.
const TABLE_ELEMENTS: usize = 200_000;
/// What an engine keeps for one instance, in bytes.
const INSTANCE_BYTES: usize = 16 << 20;
/// What of an instance is set back by writing over it, and not by giving its pages back to the kernel, which takes a system call and a
/// page fault for each of them.
const RESIDENT_BYTES: usize = 256 << 10;

/// Address space for so many instances of one function; memory is taken when it is used.
pub(super) fn own(instances: u32) -> InstanceAllocationStrategy {
    strategy(instances, instances.saturating_mul(MEMORIES))
}

/// The same for many functions, of which not all instances have as many memories as one may.
pub(super) fn shared(instances: u32) -> InstanceAllocationStrategy {
    strategy(instances, instances.saturating_add(instances / 2))
}

fn strategy(instances: u32, memories: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(memories.max(MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .total_stacks(instances)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_module(TABLES)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(RESIDENT_BYTES)
        .table_keep_resident(RESIDENT_BYTES)
        // Needs a descriptor of a /proc that is not there any more when the first instance goes.
        .pagemap_scan(Enabled::No);
    InstanceAllocationStrategy::Pooling(pool)
}
