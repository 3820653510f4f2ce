// Maximization for Swift callers: arrays instead of pointers.

extension ImageMaximizer {
  /// The input of a model: height x width pixels, whose colours c between 0 and 1 have become (c - mean) / deviation.
  public struct View: Sendable {
    public var height, width: Int
    public var mean, deviation: [Float]

    public init(height: Int, width: Int, mean: [Float] = [0, 0, 0], deviation: [Float] = [1, 1, 1]) {
      self.height = height
      self.width = width
      self.mean = mean
      self.deviation = deviation
    }

    func count(views: Int) -> Int { views * Canvas.channels * height * width }
  }

  /// - Parameters:
  ///   - magnitude: of the frequencies, [3, height, width / 2 + 1], for phases and spectra; empty takes a closed form.
  ///   - start: an image [3, height, width] of colours between 0 and 1; empty starts from noise.
  public convenience init(_ options: Options, magnitude: [Float] = [], start: [Float] = []) throws(USAEError) {
    try options.validate()
    let plane = Canvas.channels * options.height
    try Self.check("magnitude", magnitude, plane * (options.width / 2 + 1), orEmpty: true)
    try Self.check("start", start, plane * options.width, orEmpty: true)
    try self.init(options, magnitude: magnitude.isEmpty ? nil : magnitude, start: start.isEmpty ? nil : start)
  }

  /// Views of this step, [views, 3, height, width].
  public func views(for view: View) throws(USAEError) -> [Float] {
    try Self.check(view.height, view.width)
    var out = [Float](repeating: 0, count: view.count(views: options.views))
    try views(
      height: view.height, width: view.width, scale: try PixelScale(mean: view.mean, deviation: view.deviation), out: &out,
      poll: nil)
    return out
  }

  /// Takes the gradient of the objective with respect to such views, and adds the direction of the image's gradient times
  /// `weight`. Returns the length of the image's gradient.
  @discardableResult
  public func addGradient(_ gradient: [Float], for view: View, weight: Double = 1) throws(USAEError) -> Double {
    try Self.check(view.height, view.width)
    try Self.check("gradient", gradient, view.count(views: options.views))
    return try addGradient(
      gradient, height: view.height, width: view.width, scale: try PixelScale(mean: view.mean, deviation: view.deviation),
      weight: weight, poll: nil)
  }

  /// One step uphill along the gradients that were added; they are used up.
  public func advance() throws(USAEError) { try advance(poll: nil) }

  /// The image [3, height, width], colours between 0 and 1.
  public func image() throws(USAEError) -> [Float] {
    var out = [Float](repeating: 0, count: Canvas.channels * options.height * options.width)
    try image(&out)
    return out
  }

  /// How much each pixel [height, width] has contributed to the objective.
  public func attribution() throws(USAEError) -> [Float] {
    var out = [Float](repeating: 0, count: options.height * options.width)
    try attribution(&out)
    return out
  }

  private static func check(_ name: String, _ values: [Float], _ expected: Int, orEmpty: Bool = false) throws(USAEError) {
    guard values.count == expected || orEmpty && values.isEmpty else {
      throw .shapeMismatch(name: name, expected: "\(expected) numbers", got: "\(values.count)")
    }
  }
}

extension UniversalSAE {
  /// What is maximised.
  public enum ObjectiveKind: Sendable {
    /// (a . w) max(0.1, cos(a, w))^power: large where the concept is what the token is about. Long tokens that fire all
    /// concepts gain nothing.
    case alignment(power: Double)
    /// The pre-activation, before ReLU and the selection.
    case preactivation
    /// The code: 0, with no slope, where the concept is not among the k largest.
    case code
    /// The soft maximum of the pre-activations over a view's tokens.
    case logSumExp
  }

  /// How much activations of a model show a concept, by view, and the gradient of the mean over views.
  ///
  /// - Parameters:
  ///   - x: [views * tokens, width], in the model's own units.
  ///   - token: the one token of each view that counts; nil for the mean over all.
  public func objective(
    _ kind: ObjectiveKind = .alignment(power: 2), concept: Int, of x: Matrix, model name: String, views: Int, token: Int? = nil
  ) throws(USAEError) -> (values: [Double], gradient: Matrix) {
    let index = try index(of: name)
    try Self.require("views", views, in: 1...max(1, x.rows))
    var values = [Double](repeating: 0, count: views)
    var gradient = Matrix(rows: x.rows, columns: x.columns)
    try x.withActivations(name: name) { activations throws(USAEError) in
      try gradient.withMutableValues { out throws(USAEError) in
        try objective(
          ConceptObjective(concept: concept, kind: kind, token: token), of: activations, model: index, views: views,
          values: &values, gradient: out, work: makeWork())
      }
    }
    return (values, gradient)
  }
}
