import Testing

@testable import USAE

@Suite struct ActivationsTests {
  static func activations(_ outer: Int, _ inner: Int, _ columns: Int) throws -> Activations {
    try Activations(
      name: "a", base: UnsafeRawPointer(bitPattern: 64)!, element: .float32, outer: outer, inner: inner, columns: columns,
      outerStride: 4, innerStride: 4, columnStride: 4)
  }

  @Test(arguments: [(4, 0), (0, 4), (0, 0), (1 << 40, 0), (0, 1 << 62)])
  func noRowsAreNoRowsWhicheverOfTheSizesIsZero(outer: Int, inner: Int) throws {
    #expect(try Self.activations(outer, inner, 3).rows == 0)
  }

  @Test(arguments: [
    (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-2, -2, 1), (1 << 62, 1, 1), (1 << 20, 1 << 21, 1), (1, 1, 1 << 41),
    (1 << 32, 1 << 32, 1),
  ])
  func moreThanCanBeCountedIsRefused(outer: Int, inner: Int, columns: Int) {
    #expect(throws: USAEError.self) { try Self.activations(outer, inner, columns) }
  }

  @Test func placesInOutputsThatCannotBeCountedAreRefused() throws {
    try UniversalSAE.checkOutput("out", rows: 1 << 40, columns: 1 << 10)
    #expect(throws: USAEError.self) { try UniversalSAE.checkOutput("out", rows: 1 << 40, columns: 1 << 24) }
    #expect(throws: USAEError.self) { try UniversalSAE.checkOutput("out", rows: 1 << 40, columns: 1 << 20) }
  }
}
