//! The memory that this process can still take.

use std::{fs, path::Path};

/// Bytes that this process can take: those that the system has available, and no more than its control groups leave.
/// `None` where the system does not list them, which is everywhere but on Linux.
pub(crate) fn available_memory() -> Option<u64> {
    available_under(Path::new("/"))
}

/// The same, with the system's files below another folder.
fn available_under(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kibibytes = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"))?;
    let system = kibibytes.parse::<u64>().ok()? << 10;
    Some(left_by_groups(root).map_or(system, |left| left.min(system)))
}

/// The files of a control group: its limit, its use, and the name of reclaimable pages in `memory.stat`.
struct GroupFiles {
    base: &'static str,
    limit: &'static str,
    usage: &'static str,
    reclaimable: &'static str,
}

const V1: GroupFiles = GroupFiles {
    base: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
const V2: GroupFiles =
    GroupFiles { base: "sys/fs/cgroup", limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file" };

/// Bytes that the limits of this process's control groups leave; `None` without a limit.
fn left_by_groups(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let left_by = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let files = match controllers {
            "" => V2,
            _ if controllers.split(',').any(|controller| controller == "memory") => V1,
            _ => return None,
        };
        let base = root.join(files.base);
        // Each group is limited by those above it. In a container the group's own folder may not be mounted.
        let own = base.join(group.trim_start_matches('/'));
        own.ancestors().take_while(|folder| folder.starts_with(&base)).filter_map(|folder| files.left_in(folder)).min()
    };
    groups.lines().filter_map(left_by).min()
}

impl GroupFiles {
    fn left_in(&self, folder: &Path) -> Option<u64> {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let value = |line: &str| line.strip_prefix(self.reclaimable)?.strip_prefix(' ')?.parse::<u64>().ok();
        let reclaimable = stat.lines().find_map(value).unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  8192 kB\nMemAvailable:    4096 kB\n");

    #[test]
    fn system_without_limits_has_what_is_available() {
        assert_eq!(available_under(system(&[MEMINFO]).path()), Some(4 << 20));
        let unlimited = [
            MEMINFO,
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "100\n"),
        ];
        assert_eq!(available_under(system(&unlimited).path()), Some(4 << 20));
        assert_eq!(available_under(system(&[]).path()), None);
    }

    #[test]
    fn smallest_limit_of_the_groups_counts_without_reclaimable_pages() {
        let nested = [
            MEMINFO,
            ("proc/self/cgroup", "0::/pods/job\n"),
            ("sys/fs/cgroup/pods/memory.max", "3000000\n"),
            ("sys/fs/cgroup/pods/memory.current", "1500000\n"),
            ("sys/fs/cgroup/pods/memory.stat", "anon 1\ninactive_file 500000\nactive_file 7\n"),
            ("sys/fs/cgroup/pods/job/memory.max", "2500000\n"),
            ("sys/fs/cgroup/pods/job/memory.current", "100\n"),
        ];
        assert_eq!(available_under(system(&nested).path()), Some(2_000_000));
        let container = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,memory:/docker/abc\n4:cpuset:/docker/abc\n0::/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1200000\n"),
        ];
        assert_eq!(available_under(system(&container).path()), Some(0));
    }
}
