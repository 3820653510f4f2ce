import Testing

@testable import USAE

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The run-time dispatch repeats the table of Package.swift, since a module cannot be imported by a table.
@Suite struct InstructionSetTests {
  /// Pairs of a name and a target, in the order in which a file of the package has them.
  private static func pairs(_ pattern: Regex<(Substring, Substring, Substring)>, in file: String) throws -> [[String]] {
    let tests = try #require(#filePath.ranges(of: "Tests/USAETests/").last)
    let handle = try #require(fopen(#filePath[..<tests.lowerBound] + file, "r"), "the tests are run beside their sources")
    defer { fclose(handle) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = fread(&bytes, 1, bytes.count, handle)
    let text = String(decoding: bytes[..<count], as: UTF8.self)
    return text.matches(of: pattern).map { [String($0.1), String($0.2)] }
  }

  @Test func theDispatchHasNamesAndTargetsOfPackageSwiftInItsOrder() throws {
    let table = try Self.pairs(/name: "(\w+)", target: "(\w+)", architecture/, in: "Package.swift")
    let dispatch = try Self.pairs(/\("(\w+)", \w+, (\w+)\.kernelTable\)/, in: "Sources/USAE/Runtime/KernelChoice.swift")
    #expect(dispatch == table)
    let available = availableKernels().map { "\($0.name)" }
    #expect(available == table.map(\.[0]).filter(available.contains))
    #expect(available.last == "portable")
  }
}
