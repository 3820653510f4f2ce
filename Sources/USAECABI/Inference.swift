public import CUSAE
import USAE

/// The activations of `x`, named after the model where there is one of that number.
func activations(_ x: UnsafePointer<usae_matrix>?, of sae: UniversalSAE, model: Int32) throws(USAEError) -> Activations {
  let names = sae.modelNames
  let name = names.indices.contains(Int(model)) ? names[Int(model)] : "number \(model)"
  return try Activations(try required(x, "x").pointee, name: name)
}

@c @implementation
public func usae_encode(
  _ sae: OpaquePointer?, _ model: Int32, _ x: UnsafePointer<usae_matrix>?, _ values: UnsafeMutablePointer<Float>?,
  _ indices: UnsafeMutablePointer<Int32>?, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    try sae.encode(
      try activations(x, of: sae, model: model), model: Int(model), values: try required(values, "values"),
      indices: try required(indices, "indices"), work: sae.makeWork(poll: poll(interrupt)))
  }
}

@c @implementation
public func usae_decode(
  _ sae: OpaquePointer?, _ model: Int32, _ n: Int64, _ slots: Int64, _ values: UnsafePointer<Float>?,
  _ indices: UnsafePointer<Int32>?, _ width: Int64, _ out: UnsafeMutablePointer<Float>?,
  _ interrupt: UnsafePointer<usae_interrupt>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    try sae.decode(
      model: Int(model), rows: Int(n), slots: Int(slots), values: try required(values, "values"),
      indices: try required(indices, "indices"), width: Int(width), out: try required(out, "out"),
      work: sae.makeWork(poll: poll(interrupt)))
  }
}

@c @implementation
public func usae_preactivations(
  _ sae: OpaquePointer?, _ model: Int32, _ x: UnsafePointer<usae_matrix>?, _ out: UnsafeMutablePointer<Float>?,
  _ interrupt: UnsafePointer<usae_interrupt>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    try sae.preactivations(
      try activations(x, of: sae, model: model), model: Int(model), out: try required(out, "out"),
      work: sae.makeWork(poll: poll(interrupt)))
  }
}

@c @implementation
public func usae_evaluate(
  _ sae: OpaquePointer?, _ n_models: Int32, _ matrices: UnsafePointer<usae_matrix>?, _ threshold: Double,
  _ out: UnsafePointer<usae_evaluation>?, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let out = try usae_evaluation.input(out, "out")
    try requireZero(out.reserved, "out")
    let activations = try Activations.list(matrices, n_models, names: sae.modelNames)
    let work = sae.makeWork(poll: poll(interrupt), progress: progress(interrupt))
    let result = try sae.evaluate(activations, threshold: threshold, work: work)
    store(result.r2, out.r2)
    store(result.r2Standardized, out.r2_standardized)
    store(result.r2ScalarMean, out.r2_scalar_mean)
    store(result.meanSquaredError, out.mse)
    store([result.l0], out.l0)
    store(result.firingCounts, out.firing_counts)
    store(result.pairCofireCounts.flatMap { $0 }, out.pair_cofire_counts)
    store([result.cofireCounts], out.cofire_counts)
    store([result.unionCounts], out.union_counts)
    store(result.meanActivation, out.mean_activation)
    store(result.maxActivation, out.max_activation)
    store(result.codeProducts.flatMap { $0 }, out.code_products)
  }
}

@c @implementation
public func usae_top_examples(
  _ sae: OpaquePointer?, _ model: Int32, _ x: UnsafePointer<usae_matrix>?, _ n: Int64, _ tokens_per_image: Int64,
  _ values: UnsafeMutablePointer<Float>?, _ tokens: UnsafeMutablePointer<Int64>?,
  _ interrupt: UnsafePointer<usae_interrupt>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    try sae.topExamples(
      try activations(x, of: sae, model: model), model: Int(model), n: Int(n), tokensPerImage: Int(tokens_per_image),
      values: try required(values, "values"), tokens: try required(tokens, "tokens"),
      work: sae.makeWork(poll: poll(interrupt), progress: progress(interrupt)))
  }
}

/// Copies rows to the caller's array; NULL skips them.
private func store<Element>(_ rows: [[Element]], _ out: UnsafeMutablePointer<Element>?) {
  guard var place = out else { return }
  for row in rows {
    place.update(from: row, count: row.count)
    place += row.count
  }
}
