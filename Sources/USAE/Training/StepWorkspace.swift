/// Memory of a training step, kept from step to step: proportional to the batch and to a tile, never to tokens x concepts.
final class StepWorkspace: @unchecked Sendable {
  let rows: Int
  /// Tokens that the step's means are over: `rows`, or with a shared step those of all processes.
  var totalRows: Int
  /// With a shared step, the row of the whole batch that is this process's first.
  var firstRow = 0
  /// Standardised tokens of each model, [rows, width].
  let tokens: [PaddedMatrix]
  /// Residuals x - z D of each model, then dLoss/d(z D).
  let residuals: [PaddedMatrix]
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
  private var statistics: [Int: BatchStatistics] = [:]
  private var dead: DeadAuxiliary.Buffers?
  private var published: PublishedAuxiliary.Buffers?
  /// For each thread a gradient row, and scratch memory of the same size.
  let updateScratch: [FloatBuffer]

  init(rows: Int, k: Int, recipe: Recipe, concepts: Int, widths: [Int], threads: Int) throws(USAEError) {
    self.rows = rows
    totalRows = rows
    self.concepts = concepts
    self.threads = threads
    var tokens: [PaddedMatrix] = []
    var residuals: [PaddedMatrix] = []
    for width in widths {
      tokens.append(try PaddedMatrix(rows: rows, columns: width))
      residuals.append(try PaddedMatrix(rows: rows, columns: width))
    }
    self.tokens = tokens
    self.residuals = residuals
    let slots = try recipe.slots(concepts: concepts, k: k)
    codes = try CodeBuffer(rows: rows, slots: slots)
    codeGradients = try FloatBuffer(rows * slots)
    batchSelection = recipe.selection == .batchTopK ? try BatchSelection(rows: rows) : nil
    // However many slots a token has, all tokens use k on average at most.
    groups = try ConceptGroups(rows: rows, slots: k, concepts: concepts)
    let prefixEnds = recipe.prefixEnds(concepts: concepts)
    let isDrawn = !prefixEnds.isEmpty && recipe.prefixLoss == .drawn
    drawn = isDrawn ? DrawnPrefix(ends: prefixEnds) : nil
    found = isDrawn ? try AlignedBuffer<Int32>(rows) : nil
    nested =
      prefixEnds.isEmpty || isDrawn
      ? nil : try NestedPrefixes(ends: prefixEnds, rows: rows, slots: slots, widths: widths, threads: threads)
    let blocks = (rows + Reconstruction.blockRows - 1) / Reconstruction.blockRows
    lossSums = try AlignedBuffer<Double>(blocks * widths.count)
    let widest = paddedWidth(widths.max() ?? 1)
    scratch = try makeScratch(threads, max(slots, recipe.auxiliarySlots(concepts: concepts, k: k), widest))
    updateScratch = try makeScratch(threads, 2 * widest)
  }

  /// Allocates for a shared step, where one process may keep more than k entries a token.
  func allowUnevenCodes() throws(USAEError) {
    guard groups.tokens.count < codes.values.count else { return }
    groups = try ConceptGroups(rows: rows, slots: codes.slots, concepts: concepts)
  }

  /// Excludes concepts from `end` on from the reconstruction.
  func keepConcepts(before end: Int) {
    guard let found else { return }
    codes.keep(before: end, found: found.base)
  }

  /// Number of all entries of a token's code, those outside the prefix included.
  @inline(__always) func foundCount(_ token: Int) -> Int { found.map { Int($0.base[token]) } ?? codes.count(token) }

  func fits(rows: Int, threads: Int) -> Bool { self.rows == rows && self.threads == threads }

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

  func statistics(width: Int) throws(USAEError) -> BatchStatistics {
    if let found = statistics[width] { return found }
    let made = try BatchStatistics(rows: rows, width: width, concepts: concepts, threads: threads)
    statistics[width] = made
    return made
  }

  func deadBuffers(every: Int, slots: Int, columns: Int) throws(USAEError) -> DeadAuxiliary.Buffers {
    if let dead { return dead }
    let made = try DeadAuxiliary.Buffers(
      rows: AuxiliaryTokens.most(of: rows, every: every), slots: slots, concepts: concepts, columns: columns,
      widths: residuals.map(\.columns), threads: threads)
    dead = made
    return made
  }

  func publishedBuffers(columns: Int, models: [ModelParameters]) throws(USAEError) -> PublishedAuxiliary.Buffers {
    if let published { return published }
    let made = try PublishedAuxiliary.Buffers(columns: columns, models: models, threads: threads)
    published = made
    return made
  }
}
