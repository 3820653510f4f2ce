import Testing

@testable import USAE

/// Maximization as a Swift program uses it: a network of one matrix, and no pointer.
@Suite struct MaximizationArraysTests {
  static let view = ImageMaximizer.View(height: 6, width: 6)
  static let pixels = 3 * 6 * 6

  /// A network whose only token is a fixed linear map of the picture.
  private static func network(width: Int) -> [Float] {
    var random = TestRandom(11)
    return random.row(width * pixels)
  }

  @Test func aSwiftLoopMakesAnImageThatShowsTheConceptMore() throws {
    let width = 4
    let sae = try UniversalSAE(concepts: 8, k: 2, seed: 3, threads: 1)
    try sae.initialize([("a", width)])
    var options = ImageMaximizer.Options()
    (options.height, options.width, options.steps, options.views, options.threads) = (12, 12, 30, 4, 1)
    let maximizer = try ImageMaximizer(options)
    let network = Self.network(width: width)
    var history: [Double] = []
    for _ in 0..<options.steps {
      let views = try maximizer.views(for: Self.view)
      var tokens = Matrix(rows: options.views, columns: width)
      for v in 0..<options.views {
        for c in 0..<width {
          tokens[v, c] = (0..<Self.pixels).reduce(0) { $0 + views[v * Self.pixels + $1] * network[c * Self.pixels + $1] }
        }
      }
      let (values, slope) = try sae.objective(.preactivation, concept: 5, of: tokens, model: "a", views: options.views)
      history.append(values.reduce(0, +))
      var gradient = [Float](repeating: 0, count: views.count)
      for v in 0..<options.views {
        for p in 0..<Self.pixels {
          gradient[v * Self.pixels + p] = (0..<width).reduce(0) { $0 + slope[v, $1] * network[$1 * Self.pixels + p] }
        }
      }
      #expect(try maximizer.addGradient(gradient, for: Self.view) > 0)
      try maximizer.advance()
    }
    #expect(history.suffix(5).reduce(0, +) > history.prefix(5).reduce(0, +) + 1)
    #expect(try maximizer.image().allSatisfy { (0...1).contains($0) })
    #expect(try maximizer.attribution().allSatisfy { $0 >= 0 })
    #expect(throws: USAEError.self) { try maximizer.advance() }
  }

  @Test func arraysOfTheWrongSizeAreRefused() throws {
    var options = ImageMaximizer.Options()
    (options.height, options.width, options.steps, options.views) = (8, 8, 2, 2)
    let refused = { (error: any Error) in "\(error)".contains("numbers, got") }
    #expect { try ImageMaximizer(options, start: [0.5]) } throws: { refused($0) }
    #expect { try ImageMaximizer(options, magnitude: [1, 2]) } throws: { refused($0) }
    let maximizer = try ImageMaximizer(options)
    #expect { try maximizer.addGradient([1], for: Self.view) } throws: { refused($0) }
    #expect(throws: USAEError.self) { try maximizer.views(for: .init(height: 0, width: 6)) }
    #expect(throws: USAEError.self) { try maximizer.views(for: .init(height: 6, width: 6, deviation: [1, 0, 1])) }
  }
}
