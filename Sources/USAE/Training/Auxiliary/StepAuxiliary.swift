/// The auxiliary loss of a step, with its memory.
enum StepAuxiliary {
  case none
  /// AuxK on the concepts that are dead before the step.
  case dead(DeadAuxiliary.Buffers)
  /// The published AuxK, on all concepts.
  case published(PublishedAuxiliary.Buffers)

  /// The seats of the encoders that have auxiliary codes.
  var seats: [Int] {
    switch self {
    case .none: []
    case .dead(let buffers): buffers.seats
    case .published(let buffers): Array(buffers.sums.indices)
    }
  }

  /// Whether there is one. It needs the residuals of the main code.
  var exists: Bool {
    if case .none = self { false } else { true }
  }

  /// How much of the backward pass can come before the auxiliary loss.
  func backward(_ reconstruction: Reconstruction) -> Reconstruction.Backward {
    switch self {
    case .none: .all
    case .dead: DeadAuxiliary.leavesSlopes(reconstruction) ? .codeGradients : .none
    case .published: .none
    }
  }

  /// Whether gradients are dense: then the tensors' gradient buffers already hold a part when the gradients of the codes'
  /// entries are added.
  var isDense: Bool {
    if case .published = self { true } else { false }
  }

  var dead: DeadAuxiliary.Buffers? {
    if case .dead(let buffers) = self { buffers } else { nil }
  }

  /// Sums over tokens of a dense auxiliary code's gradients, [n_concepts].
  func denseSums(_ seat: Int) -> AlignedBuffer<Double>? {
    if case .published(let buffers) = self { buffers.sums[seat] } else { nil }
  }

  /// Whether all code gradients are finite.
  var isFinite: Bool {
    switch self {
    case .none: true
    case .dead(let buffers): buffers.codes.isFinite(buffers.codeGradients, rows: buffers.rows.count)
    case .published(let buffers):
      buffers.sums.allSatisfy { sums in (0..<sums.count).allSatisfy { sums.base[$0].isFinite } }
    }
  }
}

extension TrainingStep {
  /// The auxiliary code reconstructs the residual of the whole code, so a step that reconstructs from a shorter prefix has
  /// none.
  private var auxiliary: Recipe.Auxiliary { prefix == trainer.concepts ? recipe.auxiliary : .none }

  /// The seats of the encoders that will have auxiliary codes.
  var auxiliarySeats: [Int] {
    switch auxiliary {
    case .none: []
    case .published: Array(encoders.indices)
    case .dead: encoders.indices.filter { !deadConcepts($0).isEmpty }
    }
  }

  /// - Parameter dead: the dead concepts by seat.
  func makeAuxiliary(dead: [[Int32]]) throws(USAEError) -> StepAuxiliary {
    let columns = PackedEncoder.columns(concepts: trainer.concepts)
    switch auxiliary {
    case .dead where dead.contains { !$0.isEmpty }:
      let buffers = try workspace.deadBuffers(every: recipe.auxiliaryEvery, slots: auxiliarySlots, columns: columns)
      let chosen = AuxiliaryTokens(
        every: recipe.auxiliaryEvery, seed: trainer.seed, step: number, firstRow: workspace.firstRow,
        totalRows: workspace.totalRows)
      buffers.begin(chosen, seats: dead.indices.filter { !dead[$0].isEmpty })
      return .dead(buffers)
    case .published: return .published(try workspace.publishedBuffers(columns: columns, models: models))
    case .none, .dead: return .none
    }
  }

  /// Slots of an auxiliary code.
  var auxiliarySlots: Int { recipe.auxiliarySlots(concepts: trainer.concepts, k: trainer.k) }
}

extension Recipe {
  /// Slots of an auxiliary code.
  func auxiliarySlots(concepts: Int, k: Double) -> Int {
    switch auxiliary {
    case .none: return 0
    case .published: return auxiliaryK > 0 ? min(auxiliaryK, concepts) : concepts / 2
    case .dead: return min(auxiliaryK > 0 ? auxiliaryK : wholeK(2 * k), concepts)
    }
  }
}
