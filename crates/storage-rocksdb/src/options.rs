//! What can be set, and how RocksDB is set up.

use latitude_storage::Column;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
};

const MIB: usize = 1 << 20;

/// What an operator may set of the engine. The rest is decided here, once for all columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Memory for blocks read from disk, with their indexes and filters, shared by all columns; bytes.
    pub block_cache_bytes: usize,
    /// How much a busy column (log, base) collects in memory before it writes a file; bytes. The others
    /// collect a half of that and less, and each column may have three such buffers at a time.
    pub write_buffer_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
    /// The most that flushes and compactions write together; bytes per second.
    pub background_bytes_per_second: i64,
    /// About how large the files of staged rows grow; bytes.
    pub staged_file_bytes: u64,
}

impl Default for Options {
    /// For a machine of two cores that has other things to do.
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 * MIB,
            write_buffer_bytes: 32 * MIB,
            background_jobs: 2,
            background_bytes_per_second: 128 * MIB as i64,
            staged_file_bytes: 64 * MIB as u64,
        }
    }
}

impl Options {
    /// RocksDB's options of the whole database.
    pub(crate) fn database(&self) -> rocksdb::Options {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);

        // The log. Writes fill a buffer and only `sync` makes the system calls. The oldest log can only
        // go once every column has written out what it holds; an idle column would keep them all, so
        // beyond this size it is made to.
        options.set_manual_wal_flush(true);
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_max_total_wal_size(256 * MIB as u64);
        // Recycled log files would spare the file system some work, and RocksDB 11.8 accepts them with
        // this recovery mode, but its source still tells of a hole in recovered data with the two
        // together (SanitizeOptions in db_impl_open.cc). Not worth a doubt.
        options.set_recycle_log_file_num(0);

        options.set_max_background_jobs(self.background_jobs);
        options.set_max_subcompactions(1);
        // A fixed rate. RocksDB's self-tuning one falls to a twentieth when the store is idle and comes back
        // by a twentieth in ten seconds: the first burst of writes after a quiet time then fills every
        // buffer, and each write waits for seconds (`TuneLocked` in rate_limiter.cc).
        options.set_ratelimiter(self.background_bytes_per_second, 100_000, 10);
        // Written files go to the disk bit by bit, so that no sync finds a mountain of dirty pages.
        options.set_bytes_per_sync(MIB as u64);

        // RocksDB's own diary: short, and without statistics nobody reads.
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 * MIB);
        options.set_log_level(rocksdb::LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options
    }

    /// RocksDB's options of each column. The family called `default`, which RocksDB insists on, stays
    /// empty.
    pub(crate) fn columns(&self) -> Vec<ColumnFamilyDescriptor> {
        let cache = Cache::new_hyper_clock_cache(self.block_cache_bytes, 0);
        Column::ALL
            .into_iter()
            .map(|column| ColumnFamilyDescriptor::new(column.name(), self.column(column, &cache)))
            .collect()
    }

    /// RocksDB's options of a file that is to become one of the column's.
    pub(crate) fn staged(&self, column: Column) -> rocksdb::Options {
        // Nothing is read through it.
        self.column(column, &Cache::new_lru_cache(MIB))
    }

    fn column(&self, column: Column, cache: &Cache) -> rocksdb::Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        // Indexes and filters count as cache, so that memory has one bound.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        if matches!(column, Column::Base | Column::Overlay) {
            // Single keys are looked up here, often in vain. The others are read in spans.
            table.set_bloom_filter(10.0, false);
            table.set_optimize_filters_for_memory(true);
        }

        let mut options = rocksdb::Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        if column != Column::Log {
            // What reaches the lowest level stays; log entries do not.
            options.set_bottommost_compression_type(DBCompressionType::Zstd);
        }
        options.set_write_buffer_size(match column {
            Column::Log | Column::Base => self.write_buffer_bytes,
            Column::Overlay | Column::Stream => self.write_buffer_bytes / 2,
            Column::Node => self.write_buffer_bytes / 16,
        });
        options.set_max_write_buffer_number(3);
        options
    }
}
