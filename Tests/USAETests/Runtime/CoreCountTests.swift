import CPlatform
import Foundation
import Testing

#if os(Linux)
  /// Control groups as a container sees them, in a folder that stands for /sys/fs/cgroup.
  @Suite struct CoreCountTests {
    let mount = FileManager.default.temporaryDirectory.appending(path: "usae-\(UUID().uuidString)")

    func write(_ files: [String: String]) throws {
      for (name, text) in files {
        let file = mount.appending(path: name)
        try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try text.write(to: file, atomically: false, encoding: .utf8)
      }
    }

    func quota(_ membership: String) -> Int32 { usae_cpu_quota(membership, mount.path) }

    @Test func theSmallestQuotaOfAGroupAndThoseAboveItCounts() throws {
      defer { try? FileManager.default.removeItem(at: mount) }
      try write(["a/b/c/cpu.max": "max 100000\n", "a/b/cpu.max": "150000 100000\n", "a/cpu.max": "400000 100000\n"])
      #expect(quota("0::/a/b/c\n") == 2)  // 1.5, rounded up
      #expect(quota("0::/a\n") == 4)
      #expect(quota("0::/elsewhere\n") == 0)
      #expect(quota("0::/\n") == 0)
      try write(["cpu.max": "50000 100000\n"])
      #expect(quota("0::/a/b/c\n") == 1)
      #expect(quota("0::/a/group/of/the/host\n") == 1)
    }

    @Test func version1IsReadWhereTheCpuControllerIs() throws {
      defer { try? FileManager.default.removeItem(at: mount) }
      let period = "100000\n"
      try write([
        "cpu/x/cpu.cfs_quota_us": "300000\n", "cpu/x/cpu.cfs_period_us": period, "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": period,
      ])
      #expect(quota("5:cpuset:/x\n4:cpu,cpuacct:/x\n0::/\n") == 3)
      #expect(quota("4:cpuacct,cpu:/x") == 3)
      #expect(quota("4:cpuset,cpuacct:/x\n") == 0)
      #expect(quota("4:cpu:/\n") == 0)
    }

    @Test(arguments: ["", ":", "::", ":::", "0::", "\n\n", "no colons", "0::" + String(repeating: "/x", count: 5000)])
    func whatIsNoMembershipIsNoQuota(_ membership: String) {
      #expect(quota(membership) == 0)
    }

    @Test func damagedQuotasAreNone() throws {
      defer { try? FileManager.default.removeItem(at: mount) }
      for text in ["", "max", "100000", "0 0", "-5 100000", "nan 1", "1e300 1e-300", String(repeating: "9", count: 500)] {
        try write(["cpu.max": text])
        #expect(quota("0::/") == 0, "\(text)")
      }
    }

    @Test func thereIsAtLeastOneCore() {
      #expect(usae_cpu_count() >= 1)
    }
  }
#endif
