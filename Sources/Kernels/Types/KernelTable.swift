public typealias Floats = UnsafeMutablePointer<Float>
public typealias ConstantFloats = UnsafePointer<Float>

/// Which elementwise loss: its value is a sum of |r| or of r².
public let absoluteLoss: Int32 = 0
public let squaredLoss: Int32 = 1

/// What AdamW needs for one tensor in one step; the same for all its elements.
public struct AdamConstants {
  public var beta1, beta2: Float
  /// Learning rate over the bias correction of the first moment.
  public var stepSize: Float
  /// One over the square root of the bias correction of the second moment.
  public var inverseRootCorrection: Float
  public var epsilon: Float
  /// What decoupled weight decay leaves of a parameter: 1 - rate * decay.
  public var keep: Float
  /// Gradients are multiplied by this first (clipping).
  public var gradientScale: Float

  public init(
    beta1: Float, beta2: Float, stepSize: Float, inverseRootCorrection: Float, epsilon: Float, keep: Float,
    gradientScale: Float
  ) {
    self.beta1 = beta1
    self.beta2 = beta2
    self.stepSize = stepSize
    self.inverseRootCorrection = inverseRootCorrection
    self.epsilon = epsilon
    self.keep = keep
    self.gradientScale = gradientScale
  }
}

/// Estimates of pre-activations from bytes, with which most concepts of a token can be ruled out, and the means to compute
/// the few that are left with the bits that `Product` would give them.
public struct ScreeningKernels: @unchecked Sendable {
  /// Puts a token's bytes where `Screen` reads them: (bytes with `tokenOffset`, quads, which token of its block, block
  /// [tokensPerBlock quads]). A quad is four bytes along the depth.
  public typealias PackToken =
    @convention(c) (UnsafePointer<Int32>, Int, Int, UnsafeMutablePointer<Int32>) -> Void
  /// Pairs of a token and a concept with an upper bound above the token's floor, as long as there is room for them:
  /// (ScreenArguments, which tell how far it came).
  public typealias Screen = @convention(c) (UnsafeMutableRawPointer) -> Void
  /// A row times a factor as two digits, signed bytes of a scale and of a 254th of it: (row, columns, factor, coarse
  /// [columns], fine [columns], measures [scale, norm of the row, of what the coarse digits miss, of what both miss], sums of
  /// the digits [2]).
  public typealias Quantize =
    @convention(c) (
      ConstantFloats, Int, Float, UnsafeMutablePointer<Int8>, UnsafeMutablePointer<Int8>, Floats,
      UnsafeMutablePointer<Int32>
    ) -> Void
  /// What fine digits add to an estimate, in units of scale times scale over 254: out[q] = coarse . fine + fine . coarse of
  /// concept concepts[q] and token tokens[q]: (concepts' digits [concepts, 2, quads], tokens' digits [tokens, 2, quads]
  /// with `tokenOffset`, quads, concepts, tokens, count, out). The number of quads is a multiple of 16.
  public typealias Refine =
    @convention(c) (
      UnsafePointer<Int32>, UnsafePointer<Int32>, Int, UnsafePointer<Int32>, UnsafePointer<Int32>, Int,
      UnsafeMutablePointer<Int32>
    ) -> Void
  /// What pre-activations may be at most: (concepts, their estimates, count, norms, errors, slacks, a, b, out); norms, errors and
  /// slacks are those of all concepts, and a and b a token's factors of the first two (`ScreenArguments`).
  public typealias Uppers =
    @convention(c) (
      UnsafePointer<Int32>, ConstantFloats, Int, ConstantFloats, ConstantFloats, ConstantFloats, Float, Float, Floats
    ) -> Void
  /// The smallest of the `wanted` largest values, or 0 where fewer are positive: (values, count, wanted). There is room for another
  /// vector of values, which is overwritten; what is not a number counts as not positive.
  public typealias Floor = @convention(c) (Floats, Int, Int) -> Float
  /// out[q] = bias[c] + sum over the depth of x[p] * (scales[c] * rows[c][p]), c = indices[q], in the order of `Product`:
  /// (x, rows, row stride, scales, bias, indices, count, indices that follow in the list, which are likely to be asked for
  /// next, out).
  public typealias Chains =
    @convention(c) (
      ConstantFloats, ConstantFloats, Int, ConstantFloats, ConstantFloats, UnsafePointer<Int32>, Int, Int, Floats
    ) -> Void

  /// Whether the processor multiplies bytes so fast that screening saves time.
  public var isFast: Bool
  /// What is added to tokens' digits before they are multiplied: 128, which makes them unsigned, or 0.
  public var tokenOffset: Int32
  public var tokensPerBlock: Int
  public var panelWidth: Int
  public var quantize: Quantize
  public var packToken: PackToken
  public var screen: Screen
  public var refine: Refine
  public var uppers: Uppers
  public var floor: Floor
  public var chains: Chains

  public init(
    isFast: Bool, tokenOffset: Int32, tokensPerBlock: Int, panelWidth: Int, quantize: @escaping Quantize,
    packToken: @escaping PackToken, screen: @escaping Screen, refine: @escaping Refine, uppers: @escaping Uppers,
    floor: @escaping Floor, chains: @escaping Chains
  ) {
    self.isFast = isFast
    self.tokenOffset = tokenOffset
    self.tokensPerBlock = tokensPerBlock
    self.panelWidth = panelWidth
    self.quantize = quantize
    self.packToken = packToken
    self.screen = screen
    self.refine = refine
    self.uppers = uppers
    self.floor = floor
    self.chains = chains
  }
}

/// Signs that fit into one word of `SignKernels`.
public let signsPerWord = 60

/// Products with matrices of signs, and what such products need beside them. Lanes are 16 floats.
public struct SignKernels: @unchecked Sendable {
  /// Which elements are positive, 60 to a word, words `stride` apart: (row, columns, words, stride) -> whether one is 0.
  public typealias Words = @convention(c) (ConstantFloats, Int, UnsafeMutablePointer<UInt64>, Int) -> Bool
  /// Sets a bit of words[c] where row[c] is positive: (row, columns, bit, words).
  public typealias AddSigns = @convention(c) (ConstantFloats, Int, Int, UnsafeMutablePointer<UInt64>) -> Void
  /// out[r] += sum of +-values[i], lanes: (values, stride, count, words [ceil(count / 60), word stride], word stride, rows,
  /// tables [12 * 32 lanes], out [rows] lanes).
  public typealias Sums =
    @convention(c) (ConstantFloats, Int, Int, UnsafePointer<UInt64>, Int, Int, Floats, Floats) -> Void
  /// out = values where codes > 0, else 0, and their column sums added to sums: (values, stride, codes, stride, rows, out,
  /// stride, sums), lanes.
  public typealias MaskAndSum =
    @convention(c) (ConstantFloats, Int, ConstantFloats, Int, Int, Floats, Int, Floats) -> Void
  /// Sixteen rows, each times its scale, as [columns] lanes: (rows, stride, scales, columns, out).
  public typealias TransposeRows = @convention(c) (ConstantFloats, Int, ConstantFloats, Int, Floats) -> Void
  /// Sixteen rows from [columns] lanes: (values, stride, columns, out, stride).
  public typealias TransposeLanes = @convention(c) (ConstantFloats, Int, Int, Floats, Int) -> Void
  /// Sixteen rows += a times their transposed: (values [columns] lanes, columns, a, out, stride, spare [256]).
  public typealias AddTransposed = @convention(c) (ConstantFloats, Int, Float, Floats, Int, Floats) -> Void

  public var words: Words
  public var addSigns: AddSigns
  public var sums: Sums
  public var maskAndSum: MaskAndSum
  public var transposeRows: TransposeRows
  public var transposeLanes: TransposeLanes
  public var addTransposed: AddTransposed

  public init(
    words: @escaping Words, addSigns: @escaping AddSigns, sums: @escaping Sums, maskAndSum: @escaping MaskAndSum,
    transposeRows: @escaping TransposeRows, transposeLanes: @escaping TransposeLanes,
    addTransposed: @escaping AddTransposed
  ) {
    self.words = words
    self.addSigns = addSigns
    self.sums = sums
    self.maskAndSum = maskAndSum
    self.transposeRows = transposeRows
    self.transposeLanes = transposeLanes
    self.addTransposed = addTransposed
  }
}

/// Products with a matrix of which many elements are 0.
public struct SkippingKernels: @unchecked Sendable {
  /// Elements of a row that are looked at in one call.
  public static let depth = 32

  /// out[r] += sum over i < 32 of values[r][i] * panel[i], passing over zeros: (values, value stride, rows, panel [32,
  /// columns], columns, out, out stride). At most `width` columns.
  public typealias Add = @convention(c) (ConstantFloats, Int, Int, ConstantFloats, Int, Floats, Int) -> Void
  /// Adjacent columns of a matrix by themselves, each row times its scale if there is one: (first column, row stride, rows,
  /// scales, columns, out [rows, columns]).
  public typealias PackColumns = @convention(c) (ConstantFloats, Int, Int, ConstantFloats?, Int, Floats) -> Void
  /// out = row where positive, else 0, in pieces of 32 that lie `piece` apart, the last filled up with 0; returns how many are
  /// positive: (row, columns, out, piece).
  public typealias Rectify = @convention(c) (ConstantFloats, Int, Floats, Int) -> Int

  /// Columns of a panel.
  public var width: Int
  public var add: Add
  public var packColumns: PackColumns
  public var rectify: Rectify

  public init(width: Int, add: @escaping Add, packColumns: @escaping PackColumns, rectify: @escaping Rectify) {
    self.width = width
    self.add = add
    self.packColumns = packColumns
    self.rectify = rectify
  }
}

/// Keys that are sorted by counting larger ones; more are by a heap, since counting grows with their square.
public let mostRankedKeys = 192
/// Keys that `KernelTable.keepLargest` may write past those it is given: the sorted ones, and what fills up vectors.
public let selectionSpare = mostRankedKeys + 32

/// The hot loops for one instruction set.
///
/// Row lengths called `columns` are multiples of 16: rows are padded with zeros, so no kernel has a tail to handle. (Signs are
/// looked at one by one, for any number of columns: padding has none.)
/// `Reference.swift` in the tests says in plain loops what each computes.
public struct KernelTable: @unchecked Sendable {
  /// Pre-activations of up to `tokensPerBlock` tokens for `panelWidth` concepts, each one chain of multiply-adds over the
  /// depth in order, started from the bias: (depth, packed tokens, packed panel, bias, rows, out, out stride).
  public typealias Product =
    @convention(c) (Int, ConstantFloats, ConstantFloats, ConstantFloats, Int, Floats, Int) -> Void
  /// Pairs of a token and a concept with a pre-activation above the token's floor, as long as there is room for them:
  /// (ProductArguments, which tell how far it came).
  public typealias ProductAbove = @convention(c) (UnsafeMutableRawPointer) -> Void
  /// Rearranges tokens for `Product`: (first row, row stride, rows, depth, out [depth, tokensPerBlock]).
  public typealias PackTokens = @convention(c) (ConstantFloats, Int, Int, Int, Floats) -> Void
  /// Rearranges encoder rows for `Product`, each times its scale if there is one: (first row, row stride, rows, depth,
  /// scales, out [depth, panelWidth]).
  public typealias PackPanel = @convention(c) (ConstantFloats, Int, Int, Int, ConstantFloats?, Floats) -> Void
  /// Sort keys (see `Selection.swift`) of the elements above a threshold >= 0: (row, columns, threshold, keys) -> count.
  public typealias Scan = @convention(c) (ConstantFloats, Int, Float, UnsafeMutablePointer<UInt64>) -> Int
  /// Moves the `wanted` largest of `count` keys to the front: (keys, count, wanted).
  public typealias Partition = @convention(c) (UnsafeMutablePointer<UInt64>, Int, Int) -> Void
  /// Moves the `wanted` largest of `count` keys to the front, largest first, and returns how many there are: (keys, count,
  /// wanted). There is room for `selectionSpare` more keys.
  public typealias KeepLargest = @convention(c) (UnsafeMutablePointer<UInt64>, Int, Int) -> Int
  /// out = sum of coefficient[q] * row[index[q]]: (rows, row stride, indices, coefficients, count, columns, out).
  public typealias WeightedRows =
    @convention(c) (ConstantFloats, Int, UnsafePointer<Int32>, ConstantFloats, Int, Int, Floats) -> Void
  /// out[q] = vector . row[index[q]]: (vector, rows, row stride, indices, count, columns, out).
  public typealias Dots =
    @convention(c) (ConstantFloats, ConstantFloats, Int, UnsafePointer<Int32>, Int, Int, Floats) -> Void
  /// a . b: (a, b, columns).
  public typealias Dot = @convention(c) (ConstantFloats, ConstantFloats, Int) -> Float
  /// y += a * x: (a, x, columns, y).
  public typealias AddScaled = @convention(c) (Float, ConstantFloats, Int, Floats) -> Void
  /// y = x - y: (x, columns, y).
  public typealias SubtractFrom = @convention(c) (ConstantFloats, Int, Floats) -> Void
  /// Sum of the elementwise loss: (which loss, r, columns).
  public typealias Loss = @convention(c) (Int32, ConstantFloats, Int) -> Float
  /// out = a * dLoss/dr: (which loss, a, r, columns, out). `out` may be `r`.
  public typealias Slope = @convention(c) (Int32, Float, ConstantFloats, Int, Floats) -> Void
  /// One AdamW update: (AdamConstants, gradient, first moment, second moment, parameter, columns).
  public typealias Adam =
    @convention(c) (UnsafeRawPointer, ConstantFloats, Floats, Floats, Floats, Int) -> Void
  /// (x - mean) / scale in float32 of `count` adjacent elements; false if one of them is not finite:
  /// (source, count, mean, inverse scale, out).
  public typealias Standardize =
    @convention(c) (UnsafeRawPointer, Int, ConstantFloats, ConstantFloats, Floats) -> Bool

  public var name: StaticString
  public var tokensPerBlock: Int
  public var panelWidth: Int
  public var product: Product
  public var productAbove: ProductAbove
  public var packTokens: PackTokens
  public var packPanel: PackPanel
  public var screening: ScreeningKernels
  public var signs: SignKernels
  public var skipping: SkippingKernels
  public var fourier: FourierKernels
  public var images: ImageKernels
  public var scan: Scan
  public var partition: Partition
  public var keepLargest: KeepLargest
  public var weightedRows: WeightedRows
  public var dots: Dots
  public var dot: Dot
  public var addScaled: AddScaled
  public var subtractFrom: SubtractFrom
  public var loss: Loss
  public var slope: Slope
  public var adam: Adam
  public var standardizeFloat32: Standardize
  public var standardizeFloat16: Standardize
  public var standardizeFloat64: Standardize
  public var standardizeBFloat16: Standardize

  public init(
    name: StaticString, tokensPerBlock: Int, panelWidth: Int, product: @escaping Product,
    productAbove: @escaping ProductAbove, packTokens: @escaping PackTokens, packPanel: @escaping PackPanel,
    screening: ScreeningKernels, signs: SignKernels, skipping: SkippingKernels, fourier: FourierKernels,
    images: ImageKernels, scan: @escaping Scan, partition: @escaping Partition,
    keepLargest: @escaping KeepLargest,
    weightedRows: @escaping WeightedRows, dots: @escaping Dots, dot: @escaping Dot,
    addScaled: @escaping AddScaled, subtractFrom: @escaping SubtractFrom, loss: @escaping Loss,
    slope: @escaping Slope, adam: @escaping Adam, standardizeFloat32: @escaping Standardize,
    standardizeFloat16: @escaping Standardize, standardizeFloat64: @escaping Standardize,
    standardizeBFloat16: @escaping Standardize
  ) {
    self.name = name
    self.tokensPerBlock = tokensPerBlock
    self.panelWidth = panelWidth
    self.product = product
    self.productAbove = productAbove
    self.packTokens = packTokens
    self.packPanel = packPanel
    self.screening = screening
    self.signs = signs
    self.skipping = skipping
    self.fourier = fourier
    self.images = images
    self.scan = scan
    self.partition = partition
    self.keepLargest = keepLargest
    self.weightedRows = weightedRows
    self.dots = dots
    self.dot = dot
    self.addScaled = addScaled
    self.subtractFrom = subtractFrom
    self.loss = loss
    self.slope = slope
    self.adam = adam
    self.standardizeFloat32 = standardizeFloat32
    self.standardizeFloat16 = standardizeFloat16
    self.standardizeFloat64 = standardizeFloat64
    self.standardizeBFloat16 = standardizeBFloat16
  }
}
