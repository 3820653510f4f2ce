public import CUSAE
import USAE

@c @implementation
public func usae_shared_begin(
  _ sae: OpaquePointer?, _ n_models: Int32, _ matrices: UnsafePointer<usae_matrix>?, _ rows: UnsafePointer<Int64>?,
  _ n_rows: Int64, _ encoder: Int32, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ opening: UnsafeMutablePointer<usae_shared_opening>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let out = try Output(try required(opening, "opening"), "opening")
    let selection = try batch(rows, n_rows, encoder: encoder)
    let activations = try Activations.batch(matrices, n_models, names: sae.modelNames)
    let begun = try sae.beginShared(
      activations, rows: selection, encoder: encoder < 0 ? nil : Int(encoder), work: sae.makeWork(poll: poll(interrupt)))
    out.write(
      usae_shared_opening(
        size: 0, encoder: Int32(begun.encoders[0]), step: Int64(begun.step), tokens: Int64(begun.tokens),
        fingerprint: begun.fingerprint, present: begun.present))
  }
}

@c @implementation
public func usae_shared_agree(
  _ sae: OpaquePointer?, _ n_processes: Int64, _ tokens: UnsafePointer<Int64>?, _ rank: Int64,
  _ n_exchanges: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  sharedStatus(sae, error) { sae throws(USAEError) in
    let count = try required(n_exchanges, "n_exchanges")
    guard (1...Int64(UniversalSAE.mostProcesses)).contains(n_processes) else {
      throw .invalidArgument(
        name: "n_processes", expected: "a number from 1 to \(UniversalSAE.mostProcesses)", got: "\(n_processes)")
    }
    let tokens = UnsafeBufferPointer(start: try required(tokens, "tokens"), count: Int(n_processes))
    count.pointee = Int64(try sae.agreeShared(tokens.map(Int.init), rank: Int(rank)).count)
  }
}

@c @implementation
public func usae_shared_exchange(
  _ sae: OpaquePointer?, _ number: Int64, _ exchange: UnsafeMutablePointer<usae_exchange>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let out = try Output(try required(exchange, "exchange"), "exchange")
    let found = try sae.sharedExchange(Int(number))
    out.write(
      usae_exchange(
        size: 0, kind: found.kind.rawValue, model: Int32(found.model), tensor: found.tensor?.rawValue ?? -1,
        awaited: found.isAwaited ? 1 : 0, reserved: 0, count: Int64(found.count)))
  }
}

@c @implementation
public func usae_shared_fill(
  _ sae: OpaquePointer?, _ number: Int64, _ data: UnsafeMutablePointer<Float>?, _ count: Int64,
  _ interrupt: UnsafePointer<usae_interrupt>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  sharedStatus(sae, error) { sae throws(USAEError) in
    let data = UnsafeMutableBufferPointer(start: try required(data, "data"), count: try size(count, "count"))
    try sae.fillShared(Int(number), data, work: sae.makeWork(poll: poll(interrupt)))
  }
}

@c @implementation
public func usae_shared_take(
  _ sae: OpaquePointer?, _ number: Int64, _ sum: UnsafePointer<Float>?, _ count: Int64,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  sharedStatus(sae, error) { sae throws(USAEError) in
    let sum = UnsafeBufferPointer(start: try required(sum, "sum"), count: try size(count, "count"))
    try sae.takeShared(Int(number), sum)
  }
}

@c @implementation
public func usae_shared_finish(
  _ sae: OpaquePointer?, _ n_exchanges: Int64, _ sums: UnsafePointer<UnsafePointer<Float>?>?, _ counts: UnsafePointer<Int64>?,
  _ report: UnsafeMutablePointer<usae_step_report>?, _ losses: UnsafeMutablePointer<Double>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  sharedStatus(sae, error) { sae throws(USAEError) in
    let out = try Output(report, "report")
    let (sums, counts) = (try required(sums, "sums"), try required(counts, "counts"))
    try sae.requireShared(exchanges: try size(n_exchanges, "n_exchanges"))  // before as many elements are read
    var buffers: [UnsafeBufferPointer<Float>?] = []
    for i in 0..<Int(n_exchanges) {
      let count = try size(counts[i], "counts")
      buffers.append(sums[i].map { UnsafeBufferPointer(start: $0, count: count) })
    }
    let done = try sae.finishShared(buffers)
    out.write(usae_step_report(done))
    write(done.losses, to: losses)
  }
}

@c @implementation
public func usae_shared_abandon(_ sae: OpaquePointer?, _ error: UnsafeMutablePointer<usae_error>?) -> usae_status {
  status(error) { () throws(USAEError) in try UniversalSAE.at(sae).abandonShared() }
}

/// As `status`, but a failure ends the step, also one that the library has not seen.
private func sharedStatus(
  _ handle: OpaquePointer?, _ error: UnsafeMutablePointer<usae_error>?, _ body: (UniversalSAE) throws(USAEError) -> Void
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(handle)
    do throws(USAEError) { try body(sae) } catch {
      try sae.abandonShared()
      throw error
    }
  }
}

private func size(_ count: Int64, _ name: String) throws(USAEError) -> Int {
  guard (0...1 << 50).contains(count) else {
    throw .invalidArgument(name: name, expected: "a number from 0 to 2^50", got: "\(count)")
  }
  return Int(count)
}
