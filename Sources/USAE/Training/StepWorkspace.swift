/// Memory of a training step, kept from step to step: proportional to the batch and to a tile, never to tokens x concepts.
final class StepWorkspace: @unchecked Sendable {
  /// Tokens of the step.
  let rows: Int
  /// Each token, encoded by each of the step's encoders.
  let encodings: StepEncodings
  /// Tokens that the step's means are over: `rows`, or with a shared step those of all processes.
  var totalRows: Int
  /// With a shared step, the row of the whole batch that is this process's first.
  var firstRow = 0
  /// Standardised tokens of each model, [rows, width]; no rows before the first batch that has the model.
  private(set) var tokens: [PaddedMatrix]
  /// What encoders read: the tokens themselves, or with `Recipe.inputNoise` copies with noise (`addNoise`).
  private(set) var inputs: [PaddedMatrix]
  private let isNoisy: Bool
  /// Residuals x - z D of each model, then dLoss/d(z D), [encodings, width]; no rows either.
  private(set) var residuals: [PaddedMatrix]
  let codes: CodeBuffer
  /// dLoss/dz, laid out as the codes.
  let codeGradients: FloatBuffer
  private(set) var groups: ConceptGroups
  /// Used with BatchTopK.
  let batchSelection: BatchSelection?
  /// Used where the loss is the mean over prefixes.
  let nested: NestedPrefixes?
  /// Used where each step draws a prefix.
  let drawn: DrawnPrefix?
  /// With a drawn prefix: entries of each token's whole code, before `keepConcepts` shortened it.
  private let found: AlignedBuffer<Int32>?
  /// Sums of the main loss by block of tokens and model.
  let lossSums: AlignedBuffer<Double>
  /// A few thousand floats for each thread.
  let scratch: [FloatBuffer]
  private let concepts: Int
  private let threads: Int
  // By width, since models of the same width share them.
  private var encoders: [Int: PackedEncoder] = [:]
  private var tileScratch: [Int: [TileScratch]] = [:]
  // By seat, since the statistics of all encoders of a step are needed for its update, and by width.
  private var statistics: [[Int: BatchStatistics]]
  private var dead: DeadAuxiliary.Buffers?
  private var published: PublishedAuxiliary.Buffers?
  private var agreementBuffers: Agreement.Buffers?
  /// For each thread a gradient row, and scratch memory of the same size.
  let updateScratch: [FloatBuffer]

  /// - Parameter rows: tokens of a step.
  init(
    rows: Int, encoders: Int, k: Double, recipe: Recipe, concepts: Int, widths: [Int], threads: Int
  ) throws(USAEError) {
    self.rows = rows
    encodings = StepEncodings(tokens: rows, encoders: encoders)
    totalRows = rows
    statistics = Array(repeating: [:], count: encoders)
    self.concepts = concepts
    self.threads = threads
    var tokens: [PaddedMatrix] = []
    var residuals: [PaddedMatrix] = []
    for width in widths {
      tokens.append(try PaddedMatrix(rows: 0, columns: width))
      residuals.append(try PaddedMatrix(rows: 0, columns: width))
    }
    self.tokens = tokens
    inputs = tokens
    isNoisy = recipe.inputNoise > 0
    self.residuals = residuals
    let slots = try recipe.slots(concepts: concepts, k: k)
    codes = try CodeBuffer(rows: encodings.count, slots: slots)
    codeGradients = try FloatBuffer(encodings.count * slots)
    batchSelection = recipe.selection == .batchTopK ? try BatchSelection(rows: encodings.count) : nil
    // However many slots a token has, all tokens use k on average at most.
    groups = try ConceptGroups(rows: encodings.count, encoders: encoders, slots: wholeK(k), concepts: concepts)
    let prefixEnds = recipe.prefixEnds(concepts: concepts)
    let isDrawn = !prefixEnds.isEmpty && recipe.prefixLoss == .drawn
    drawn = isDrawn ? DrawnPrefix(ends: prefixEnds) : nil
    found = isDrawn ? try AlignedBuffer<Int32>(encodings.count) : nil
    nested =
      prefixEnds.isEmpty || isDrawn
      ? nil : try NestedPrefixes(ends: prefixEnds, rows: encodings.count, slots: slots, widths: widths, threads: threads)
    lossSums = try AlignedBuffer<Double>(encoders * encodings.blocks(of: Reconstruction.blockRows) * widths.count)
    let widest = paddedWidth(widths.max() ?? 1)
    scratch = try makeScratch(threads, max(slots, recipe.auxiliarySlots(concepts: concepts, k: k), widest))
    updateScratch = try makeScratch(threads, 2 * widest)
  }

  /// Allocates what a batch that has some models needs of each.
  func allocate(_ present: [Int]) throws(USAEError) {
    for j in present where residuals[j].rows < encodings.count {
      tokens[j] = try PaddedMatrix(rows: rows, columns: tokens[j].columns)
      inputs[j] = isNoisy ? try PaddedMatrix(rows: rows, columns: tokens[j].columns) : tokens[j]
      residuals[j] = try PaddedMatrix(rows: encodings.count, columns: tokens[j].columns)
    }
  }

  /// Allocates for a shared step, where one process may keep more than k entries a token.
  func allowUnevenCodes() throws(USAEError) {
    guard groups.tokens.count < codes.values.count else { return }
    groups = try ConceptGroups(
      rows: encodings.count, encoders: encodings.encoders, slots: codes.slots, concepts: concepts)
  }

  /// Excludes concepts from `end` on from the reconstruction.
  func keepConcepts(before end: Int) {
    guard let found else { return }
    codes.keep(before: end, found: found.base)
  }

  /// Number of all entries of a token's code, those outside the prefix included.
  @inline(__always) func foundCount(_ token: Int) -> Int { found.map { Int($0.base[token]) } ?? codes.count(token) }

  /// Tokens, encoded by each of the step's encoders, that the means of all processes are over.
  var totalEncodings: Int { totalRows * encodings.encoders }

  func fits(rows: Int, encoders: Int, threads: Int) -> Bool {
    self.rows == rows && encodings.encoders == encoders && self.threads == threads
  }

  /// Packs a model's encoder in the memory of the last one of the same width.
  func pack(
    _ model: ModelParameters, _ statistics: BatchStatistics?, work: InterruptibleWork
  ) throws(USAEError) -> PackedEncoder {
    let packed = try PackedEncoder(
      model.encoderWeight.value, affine: { model.affine($0, batch: statistics) }, reusing: encoders[model.width], work: work)
    encoders[model.width] = packed
    return packed
  }

  /// Memory for each thread that selects codes.
  func tileScratch(for encoder: PackedEncoder) -> [TileScratch] {
    if let scratch = tileScratch[encoder.depth] { return scratch }
    let made = encoder.makeScratch(threads)
    tileScratch[encoder.depth] = made
    return made
  }

  func statistics(seat: Int, width: Int) throws(USAEError) -> BatchStatistics {
    if let found = statistics[seat][width] { return found }
    let made = try BatchStatistics(rows: rows, width: width, concepts: concepts, threads: threads)
    statistics[seat][width] = made
    return made
  }

  func deadBuffers(every: Int, slots: Int, columns: Int) throws(USAEError) -> DeadAuxiliary.Buffers {
    if let dead { return dead }
    let made = try DeadAuxiliary.Buffers(
      tokens: AuxiliaryTokens.most(of: rows, every: every), encodings: encodings, slots: slots, concepts: concepts,
      columns: columns, widths: residuals.map(\.columns), threads: threads)
    dead = made
    return made
  }

  func publishedBuffers(columns: Int, models: [ModelParameters]) throws(USAEError) -> PublishedAuxiliary.Buffers {
    if let published { return published }
    let made = try PublishedAuxiliary.Buffers(
      encoders: encodings.encoders, columns: columns, models: models, threads: threads)
    published = made
    return made
  }

  func buffersOfAgreement() throws(USAEError) -> Agreement.Buffers {
    if let agreementBuffers { return agreementBuffers }
    let made = try Agreement.Buffers(encodings, slots: codes.slots, concepts: concepts, threads: threads)
    agreementBuffers = made
    return made
  }
}
