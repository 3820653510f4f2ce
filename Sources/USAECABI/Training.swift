public import CUSAE
import USAE

@c @implementation
public func usae_step(
  _ sae: OpaquePointer?, _ n_models: Int32, _ matrices: UnsafePointer<usae_matrix>?, _ rows: UnsafePointer<Int64>?,
  _ n_rows: Int64, _ encoder: Int32, _ mode: Int32, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ report: UnsafeMutablePointer<usae_step_report>?, _ losses: UnsafeMutablePointer<Double>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let out = try Output(report, "report")
    guard mode == Int32(USAE_STEP_TRAIN) || mode == Int32(USAE_STEP_GRADIENTS) else {
      throw .invalidArgument(name: "mode", expected: "USAE_STEP_TRAIN or USAE_STEP_GRADIENTS", got: "\(mode)")
    }
    let selection = try batch(rows, n_rows, encoder: encoder)
    let activations = try Activations.batch(matrices, n_models, names: sae.modelNames)
    let done = try sae.step(
      activations, rows: selection, encoder: encoder < 0 ? nil : Int(encoder),
      keepGradients: mode == Int32(USAE_STEP_GRADIENTS), work: sae.makeWork(poll: poll(interrupt)))
    out.write(usae_step_report(done))
    write(done.losses, to: losses)
  }
}

@c @implementation
public func usae_gradients(
  _ sae: OpaquePointer?, _ n_models: Int32, _ inputs: UnsafePointer<usae_matrix>?, _ rows: UnsafePointer<Int64>?,
  _ n_rows: Int64, _ encoder: Int32, _ n: Int64, _ tensors: UnsafePointer<usae_tensor>?,
  _ interrupt: UnsafePointer<usae_interrupt>?, _ report: UnsafeMutablePointer<usae_step_report>?,
  _ losses: UnsafeMutablePointer<Double>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let out = try Output(report, "report")
    let memory = try tensorList(tensors, n)
    let selection = try batch(rows, n_rows, encoder: encoder)
    let activations = try Activations.batch(inputs, n_models, names: sae.modelNames)
    let done = try sae.step(
      activations, rows: selection, encoder: encoder < 0 ? nil : Int(encoder), keepGradients: true, copying: memory,
      work: sae.makeWork(poll: poll(interrupt)))
    out.write(usae_step_report(done))
    write(done.losses, to: losses)
  }
}

@c @implementation
public func usae_step_encoders(
  _ sae: OpaquePointer?, _ encoder: Int32, _ encoders: UnsafeMutablePointer<Int32>?, _ n_encoders: UnsafeMutablePointer<Int32>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    try writeEncoders(of: sae, present: nil, encoder, encoders, n_encoders)
  }
}

@c @implementation
public func usae_batch_encoders(
  _ sae: OpaquePointer?, _ n_models: Int32, _ present: UnsafePointer<Int32>?, _ encoder: Int32,
  _ encoders: UnsafeMutablePointer<Int32>?, _ n_encoders: UnsafeMutablePointer<Int32>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    guard Int(n_models) == sae.modelNames.count else {
      throw .shapeMismatch(name: "present", expected: "\(sae.modelNames.count) models", got: "\(n_models)")
    }
    let present = UnsafeBufferPointer(start: try required(present, "present"), count: Int(n_models))
    if let other = present.first(where: { $0 != 0 && $0 != 1 }) {
      throw .invalidArgument(name: "present", expected: "0 or 1 for each model", got: "\(other)")
    }
    try writeEncoders(of: sae, present: Set(present.indices.filter { present[$0] == 1 }), encoder, encoders, n_encoders)
  }
}

private func writeEncoders(
  of sae: UniversalSAE, present: Set<Int>?, _ encoder: Int32, _ encoders: UnsafeMutablePointer<Int32>?,
  _ n_encoders: UnsafeMutablePointer<Int32>?
) throws(USAEError) {
  let (out, count) = (try required(encoders, "encoders"), try required(n_encoders, "n_encoders"))
  _ = try batch(nil, 0, encoder: encoder)
  let all = try sae.encoders(first: encoder < 0 ? nil : Int(encoder), of: present)
  for (seat, model) in all.enumerated() { out[seat] = Int32(model) }
  count.pointee = Int32(all.count)
}

/// Writes losses by encoder and target model.
func write(_ losses: [[Double]], to out: UnsafeMutablePointer<Double>?) {
  guard let out else { return }
  for (i, loss) in losses.joined().enumerated() { out[i] = loss }
}

/// The rows of a batch. Checks the number of its encoder, too.
func batch(_ rows: UnsafePointer<Int64>?, _ n_rows: Int64, encoder: Int32) throws(USAEError) -> RowSelection {
  guard encoder >= -1 else {
    throw .invalidArgument(name: "encoder", expected: "a model's index, or -1 to draw one", got: "\(encoder)")
  }
  guard let rows else { return .all }
  guard (0...Int64(RowSelection.mostRows)).contains(n_rows) else {
    throw .invalidArgument(
      name: "n_rows", expected: "a number from 0 to \(RowSelection.mostRows)", got: "\(n_rows)",
      remedy: "take a smaller batch_size")
  }
  return .some(UnsafeBufferPointer(start: rows, count: Int(n_rows)))
}

extension usae_step_report {
  init(_ done: StepReport) {
    self.init()
    encoder = Int32(done.encoders[0])
    n_encoders = Int32(done.encoders.count)
    second_encoder = done.encoders.count > 1 ? Int32(done.encoders[1]) : -1
    agreement = done.agreement
    step = Int64(done.step)
    loss = done.loss
    auxiliary_loss = done.auxiliaryLoss
    l0 = done.l0
    learning_rate = done.learningRate
    gradient_norm = done.gradientNorm
    dead = Int64(done.deadConcepts)
    prefix = Int64(done.prefix)
    screened_tokens = Int64(done.screening.tokens)
    screened_candidates = Int64(done.screening.candidates)
    screened_computed = Int64(done.screening.computed)
    screened_fallbacks = Int64(done.screening.fallbacks)
  }
}

@c @implementation
public func usae_check_finite(
  _ sae: OpaquePointer?, _ n_models: Int32, _ matrices: UnsafePointer<usae_matrix>?,
  _ interrupt: UnsafePointer<usae_interrupt>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    try sae.checkFinite(
      try Activations.batch(matrices, n_models, names: sae.modelNames), work: sae.makeWork(poll: poll(interrupt)))
  }
}

@c @implementation
public func usae_shuffled_rows(
  _ seed: UInt64, _ n_rows: Int64, _ position: Int64, _ count: Int64, _ rows: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    guard (0...1 << 40).contains(count) else {
      throw .invalidArgument(name: "count", expected: "a number from 0 to 2^40", got: "\(count)")
    }
    try UniversalSAE.shuffledRows(
      seed: seed, total: Int(n_rows), position: Int(position),
      out: UnsafeMutableBufferPointer(start: count == 0 ? nil : try required(rows, "rows"), count: Int(count)))
  }
}
