"""What other tools call a key, and which key that is here."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from functools import cache
from typing import Final

from simulator.specs import (
    AcceleratorSpec,
    CampaignSpec,
    CheckpointSpec,
    CommunicationPrecisionSpec,
    DataSpec,
    DistillationSpec,
    FabricSpec,
    HostSpec,
    JitterSpec,
    LinkSpec,
    NodeGroupSpec,
    OffloadSpec,
    OptimizerPrecisionSpec,
    ParallelismSpec,
    SimulationSpec,
    SlowGpusSpec,
    StorageSpec,
    TrainingSpec,
    TransformerSpec,
)
from simulator.specs._base import Spec

_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "tensor_parallel": (
        "tp", "tp_size", "tensor_model_parallel_size", "tensor_parallel_size", "tensor_parallel_degree",
        "tensor_parallelism", "model_parallel_size", "tensor_par", "mp",
    ),
    "pipeline_parallel": (
        "pp", "pp_size", "pipeline_model_parallel_size", "pipeline_parallel_size", "pipeline_parallel_degree",
        "pipeline_parallelism", "num_stages", "pipeline_stages", "pipeline_par",
    ),
    "virtual_pipeline": (
        "vp", "vpp", "virtual_pipeline_model_parallel_size", "virtual_pipeline_parallel", "interleave",
        "num_model_chunks", "pipeline_interleaving", "num_layers_per_virtual_pipeline_stage",
    ),
    "pipeline_schedule": ("schedule", "pipeline_parallel_schedule", "pp_schedule"),
    "context_parallel": (
        "cp", "cp_size", "context_parallel_size", "context_parallel_degree", "context_parallelism",
    ),
    "expert_parallel": (
        "ep", "ep_size", "expert_model_parallel_size", "expert_parallel_size", "expert_parallel_degree",
    ),
    "expert_tensor_parallel": ("etp", "expert_tensor_parallel_size", "moe_tp"),
    "expert_capacity_factor": ("moe_expert_capacity_factor", "capacity_factor"),
    "context_parallel_method": ("cp_comm_type", "context_parallel_type", "ulysses", "ring_attention"),
    "sharding_group_size": ("fsdp_size", "hsdp", "data_parallel_shard_degree", "zero_hpz_partition_size"),
    "reshard_after_forward": ("fsdp_reshard_after_forward", "reshard"),
    "gather_prefetch": ("fsdp_prefetch", "forward_prefetch"),
    "gather_prefetch_backward": ("backward_prefetch", "fsdp_backward_prefetch"),
    "pipeline_layers": ("pipeline_model_parallel_layout", "layers_per_stage"),
    "lora_rank": ("lora_r", "lora_dim", "peft_dim", "r"),
    "lora_targets": ("target_modules", "lora_attn_modules"),
    "frozen_layers": ("freeze_layers", "num_frozen_layers", "num_layers_frozen"),
    "frozen": ("freeze", "frozen_parameters", "freeze_patterns", "frozen_modules"),
    "offload": ("cpu_offloading", "offloading", "cpu_offload", "offload_optimizer", "offload_parameters"),
    "activations": ("cpu_checkpointing", "offload_activations", "enable_activation_offloading"),
    "activation_layers": ("cpu_offloading_num_layers",),
    "parameters": ("offload_param", "offload_params", "params"),
    "optimizer_fraction": ("ratio", "optimizer_offload_fraction"),
    "master_parameters": ("master_weights", "fp32_master", "keep_fp32_weights"),
    "optimizer_precision": ("optimizer_state_dtype",),
    "first_moment": ("exp_avg_dtype", "exp_avg", "m", "momentum"),
    "second_moment": ("exp_avg_sq_dtype", "exp_avg_sq", "v", "variance"),
    "master": ("main_params_dtype", "main_params"),
    "gradients": ("grads", "grad"),
    "dispatch": ("expert_dispatch_precision", "moe_dispatch_precision", "dispatch_dtype"),
    "combine": ("combine_dtype",),
    "activation_input_precision": ("activation_func_fp8_input_store",),
    "parameter_precision": ("fp8_param_gather", "fp8_params", "fp8_param", "fp8_model_init"),
    "communication_precision": ("grad_comm_dtype", "reduce_precision"),
    "data_parallel": (
        "dp", "dp_size", "data_parallel_size", "data_parallel_degree", "data_parallel_replicate_degree",
        "data_parallelism", "data_par", "num_replicas", "replicas",
    ),
    "data_parallel_sharding": (
        "zero", "zero_stage", "fsdp", "sharding", "optimizer_sharding", "use_distributed_optimizer",
        "distributed_optimizer", "sharding_strategy", "data_par_sharding",
    ),
    "sequence_parallel": ("sp", "enable_sequence_parallel", "seq_par", "seq_parallel"),
    "gradient_bucket": ("bucket_size", "bucket_cap_mb", "ddp_bucket_size", "reduce_bucket_size"),
    "overlap_gradient_reduction": ("overlap_grad_reduce", "overlap_comm", "overlap", "data_par_overlap"),
    "micro_batch_size": (
        "mbs", "micro_batch", "microbatch_size", "microbatch", "train_micro_batch_size_per_gpu",
        "per_device_train_batch_size", "local_batch_size", "micro_bs",
    ),
    "global_batch_size": (
        "gbs", "batch_size", "global_batch", "train_batch_size", "batch", "batch_seq", "global_bs",
    ),
    "sequence_length": (
        "seq_length", "seq_len", "seqlen", "seq", "seq_size", "context_length", "max_length", "max_seq_len",
        "encoder_seq_length", "block_size",
    ),
    "decoder_sequence_length": ("decoder_seq_length", "target_length", "max_target_length"),
    "encoder_pipeline_parallel": (
        "pipeline_model_parallel_split_rank", "encoder_pipeline_model_parallel_size", "split_rank",
    ),
    "num_encoder_layers": ("encoder_layers",),
    "num_decoder_layers": ("decoder_layers",),
    "distillation": ("knowledge_distillation", "kd", "teacher_model"),
    "precision": ("dtype", "datatype", "data_type", "torch_dtype", "mixed_precision", "param_dtype"),
    "gradient_precision": ("grad_dtype", "grad_reduce_in_fp32", "reduce_dtype", "main_grads_dtype"),
    "recompute": (
        "activation_checkpointing", "checkpoint_activations", "recompute_granularity",
        "gradient_checkpointing", "activation_recompute", "recomputation",
    ),
    "recompute_num_layers": (
        "recompute_layers", "activations_checkpoint_num_layers", "checkpoint_num_layers",
    ),
    "recompute_method": ("activations_checkpoint_method", "checkpoint_method"),
    "recompute_modules": ("modules_to_recompute", "recompute_module", "selective_recompute_modules"),
    "attention": ("flash_attention", "use_flash_attn", "attn_implementation", "fused_attention"),
    "gradient_clipping": ("clip_grad", "max_grad_norm", "grad_clip"),
    "steps": ("num_steps", "train_iters", "iterations", "train_steps", "max_steps"),
    "optimizer": ("optim", "optimiser"),
    "gpus_per_node": (
        "gpus", "num_gpus", "ngpus", "gpu_per_node", "accelerators_per_node", "devices_per_node",
        "nproc_per_node", "n_gpus", "world_size", "num_procs", "gpu_count",
    ),
    "nodes": ("num_nodes", "nnodes", "node_count", "n_nodes", "hosts"),
    "accelerator": ("gpu", "device", "chip", "gpu_type", "accelerator_type", "tpu"),
    "scale_up": ("nvlink", "intra_node", "intranode", "scaleup", "intra_node_network", "interconnect"),
    "scale_out": ("network", "nic", "infiniband", "inter_node", "internode", "scaleout", "ethernet"),
    "scale_up_domain": ("nvlink_domain", "domain_size", "scale_up_size"),
    "node_groups": ("groups", "node_group", "pools"),
    "peak_flops": ("flops", "tflops", "peak_tflops", "matrix_flops", "matrix", "peak"),
    "vector_flops": ("vector", "cuda_core_flops", "fp32_flops"),
    "memory_capacity": (
        "memory", "hbm", "hbm_capacity", "memory_size", "hbm_size", "capacity", "vram", "dram", "mem",
        "memory_capacity_gb", "ram",
    ),
    "memory_bandwidth": (
        "hbm_bandwidth", "hbm_bw", "memory_bw", "mem_bw", "mem_bandwidth", "dram_bandwidth",
    ),
    "num_compute_units": ("sms", "num_sms", "cores", "compute_units", "sm_count"),
    "tdp": ("power", "tdp_w", "watts"),
    "bandwidth": ("bandwith", "bw", "speed", "bandwidth_gbps", "link_bandwidth"),
    "latency": ("lat", "delay", "latency_us"),
    "oversubscription": ("oversub", "oversubscribed", "oversubscription_ratio"),
    "cpu_cores": ("cpus", "cores_per_node", "num_cpus"),
    "read_bandwidth": ("read_bw", "read"),
    "write_bandwidth": ("write_bw", "write"),
    "num_hidden_layers": ("num_layers", "n_layer", "n_layers", "layers_count", "attn_blocks", "depth"),
    "hidden_size": ("d_model", "n_embd", "hidden", "dim", "hidden_dim", "embedding_dim"),
    "intermediate_size": ("ffn_hidden_size", "d_ff", "ffn_dim", "feedforward", "ffn", "mlp_dim"),
    "num_attention_heads": ("n_head", "num_heads", "n_heads", "heads", "attn_heads"),
    "num_key_value_heads": ("num_query_groups", "n_kv_heads", "kv_heads", "num_kv_heads"),
    "head_dim": ("attn_size", "kv_channels", "head_size", "d_head", "d_kv"),
    "vocab_size": ("vocab", "padded_vocab_size", "n_vocab", "vocabulary_size"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_length"),
    "tie_word_embeddings": ("tied_embeddings", "share_embeddings", "tie_embeddings"),
    "sample_size": ("record_size", "bytes_per_sample", "record_length", "sample_bytes"),
    "samples_per_file": ("num_samples_per_file", "records_per_file"),
    "loader_workers": ("num_workers", "read_threads", "dataloader_num_workers", "workers"),
    "prefetch": ("prefetch_factor", "prefetch_size", "prefetch_depth"),
    "mean_time": ("mttf", "mtbf", "mean_time_to_failure", "mean_time_between_failures"),
    "repair": ("mttr", "repair_time", "mean_time_to_repair"),
    "detection": ("detection_time", "time_to_detect"),
    "restart": ("restart_time", "recovery_time"),
    "spare_nodes": ("spares", "hot_spares", "num_spares"),
    "tokens": ("total_tokens", "train_tokens"),
    "samples": ("train_samples", "total_samples"),
    "asynchronous": ("async", "async_save"),
    "interval": ("save_interval", "every", "checkpoint_interval", "steps_between_checkpoints"),
    "player": ("engine", "backend"),
    "seed": ("random_seed", "rng_seed"),
    "warmup_steps": ("warmup", "warm_up"),
    "fold": ("folding", "symmetry"),
    "base": ("from", "extends", "preset", "inherit"),
}  # fmt: skip

# Keys that name several things by block: the first that the block has is meant.
_EXTRA: Final[Mapping[str, tuple[str, ...]]] = {
    "bandwith": ("bandwidth", "memory_bandwidth", "read_bandwidth"),
    "bw": ("bandwidth", "memory_bandwidth", "read_bandwidth"),
    "bandwidth": ("memory_bandwidth", "read_bandwidth", "storage_bandwidth"),
    "num_layers": ("num_hidden_layers", "layers"),
    "iops": ("read_iops",),
}

_BLOCKS: Final[Mapping[str, type[Spec]]] = {
    "cluster": NodeGroupSpec,
    "cluster.accelerator": AcceleratorSpec,
    "cluster.scale_up": LinkSpec,
    "cluster.host": HostSpec,
    "cluster.storage": StorageSpec,
    "cluster.drives": StorageSpec,
    "cluster.fabric": FabricSpec,
    "model": TransformerSpec,
    "distillation": DistillationSpec,
    "training": TrainingSpec,
    "training.offload": OffloadSpec,
    "training.communication_precision": CommunicationPrecisionSpec,
    "training.optimizer_precision": OptimizerPrecisionSpec,
    "parallelism": ParallelismSpec,
    "data": DataSpec,
    "checkpoint": CheckpointSpec,
    "campaign": CampaignSpec,
    "simulation": SimulationSpec,
    "cluster.slow_gpus": SlowGpusSpec,
    "simulation.jitter": JitterSpec,
}


def suggestion(key: str, allowed: Collection[str], block: str) -> str:
    """What to tell about a key that a block does not have.

    Args:
        key: The unknown key.
        allowed: The keys that the block has.
        block: Dotted name of the block, to leave it out of "belongs in".
    """
    plain = key.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")
    meant = (*_EXTRA.get(plain, ()), *_synonyms().get(plain, ()))
    here = [name for name in (plain, *meant) if name in allowed]
    if here:
        return f'unknown key; did you mean "{here[0]}"?'
    close = difflib.get_close_matches(plain, allowed, n=1, cutoff=0.75)
    if close:
        return f'unknown key; did you mean "{close[0]}"?'
    for name in (plain, *meant):
        elsewhere = [f"{other}.{name}" for other in _owners(name) if other != block]
        if elsewhere:
            return f'unknown key; did you mean "{elsewhere[0]}"?'
    listed = ", ".join(sorted(allowed))
    return f"unknown key; there are {listed}" if allowed else "unknown key"


@cache
def _synonyms() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for right, wrongs in _SYNONYMS.items():
        for wrong in wrongs:
            found[wrong] = (*found.get(wrong, ()), right)
    return found


def _owners(key: str) -> list[str]:
    common = ("name", "figures", "vendor", "kind")
    return [block for block, spec in _BLOCKS.items() if key in spec.model_fields and key not in common]
