public import CUSAE
import USAE

@c @implementation
public func usae_create(
  _ n_concepts: Int64, _ k: Double, _ seed: UInt64, _ n_threads: Int32, _ recipe: UnsafePointer<usae_recipe>?,
  _ out: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let out = try required(out, "out")
    let recipe = try usae_recipe.input(recipe, "recipe", defaults: usae_recipe(Recipe()))
    let sae = try UniversalSAE(
      concepts: Int(n_concepts), k: k, recipe: try Recipe(recipe), seed: seed, threads: Int(n_threads))
    out.pointee = OpaquePointer(Unmanaged.passRetained(sae).toOpaque())
  }
}

@c @implementation
public func usae_destroy(_ sae: OpaquePointer?) {
  guard let sae else { return }
  Unmanaged<UniversalSAE>.fromOpaque(UnsafeRawPointer(sae)).release()
}

private func strings(_ names: UnsafePointer<UnsafePointer<CChar>?>?, _ count: Int32) throws(USAEError) -> [String] {
  guard (1...Int32(UniversalSAE.mostModels)).contains(count) else {
    throw .invalidArgument(name: "models", expected: "from 1 to \(UniversalSAE.mostModels)", got: "\(count)")
  }
  let names = try required(names, "names")
  var result: [String] = []
  for i in 0..<Int(count) { result.append(String(cString: try required(names[i], "names[\(i)]"))) }
  return result
}

@c @implementation
public func usae_initialize(
  _ sae: OpaquePointer?, _ n_models: Int32, _ names: UnsafePointer<UnsafePointer<CChar>?>?,
  _ widths: UnsafePointer<Int64>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let names = try strings(names, n_models)
    let widths = try required(widths, "widths")
    try sae.initialize(names.indices.map { (names[$0], Int(widths[$0])) })
  }
}

@c @implementation
public func usae_initialize_from(
  _ sae: OpaquePointer?, _ n_models: Int32, _ names: UnsafePointer<UnsafePointer<CChar>?>?,
  _ matrices: UnsafePointer<usae_matrix>?, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let activations = try Activations.list(matrices, n_models, names: try strings(names, n_models))
    try sae.initialize(from: activations, work: sae.makeWork(poll: poll(interrupt)))
  }
}

@c @implementation
public func usae_initialize_from_parts(
  _ sae: OpaquePointer?, _ n_models: Int32, _ names: UnsafePointer<UnsafePointer<CChar>?>?, _ n_parts: Int64,
  _ matrices: UnsafePointer<usae_matrix>?, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let names = try strings(names, n_models)
    guard (1...Int64(UniversalSAE.mostParts)).contains(n_parts) else {
      throw .invalidArgument(name: "n_parts", expected: "a number from 1 to \(UniversalSAE.mostParts)", got: "\(n_parts)")
    }
    let matrices = try required(matrices, "activations")
    var parts: [[Activations?]] = []
    for part in 0..<Int(n_parts) {
      let own = n_parts == 1 ? names : names.map { "\($0), part \(part)" }
      parts.append(try Activations.batch(matrices + part * Int(n_models), n_models, names: own))
    }
    try sae.initialize(names, from: parts, work: sae.makeWork(poll: poll(interrupt)))
  }
}

@c @implementation
public func usae_describe_sample(
  _ sae: OpaquePointer?, _ model: Int32, _ width: Int64, _ sample: UnsafeMutablePointer<usae_sample>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let out = try Output(try required(sample, "sample"), "sample")
    var result = try usae_sample.input(sample, "sample")
    try requireZero(result.reserved, "sample")
    guard let report = try sae.sampleReport(model: Int(model), width: Int(width)) else {
      result.rows = 0
      out.write(result)
      return
    }
    result.center?.update(from: report.means, count: report.means.count)
    result.deviation?.update(from: report.deviations, count: report.deviations.count)
    result.rows = Int64(report.rows)
    result.outlying_rows = Int64(report.outlyingRows)
    result.left_out_rows = Int64(report.leftOutRows)
    result.identical_rows = Int64(report.identicalRows)
    result.median_distance = report.medianDistance
    result.largest_distance = report.largestDistance
    out.write(result)
  }
}

@c @implementation
public func usae_set_plan(
  _ sae: OpaquePointer?, _ total_steps: Int64, _ dead_tokens: Int64, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    try UniversalSAE.at(sae).setPlan(totalSteps: Int(total_steps), deadTokens: Int(dead_tokens))
  }
}

@c @implementation
public func usae_set_frozen(
  _ sae: OpaquePointer?, _ model: Int32, _ frozen: Int32, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    guard frozen == 0 || frozen == 1 else { throw .invalidArgument(name: "frozen", expected: "0 or 1", got: "\(frozen)") }
    try UniversalSAE.at(sae).setFrozen(frozen == 1, model: Int(model))
  }
}
