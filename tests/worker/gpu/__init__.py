"""The worker's CUDA path on a stand-in device: faults of it, and the test that holds each.

A. Compiled code is compiled again while serving: test_switch.test_a_every_picture_through_the_switch_is_right
B. The compiler replays the graphs that serve: test_switch.test_b_the_comparison_takes_no_graph
C. A lost device fails all images: test_lost_device.test_c_no_image_fails_by_a_lost_device
D. Graphs share no memory: test_memory.test_d_all_captures_are_on_one_stream_and_from_one_pool
E. Decoding limits the step: test_memory.test_e_decoding_that_needs_more_memory_than_a_step_does_not_limit_it
F. A LoRA needs all in float32: test_lora_memory.test_f_float32_is_for_the_networks_that_a_lora_touches
G. Embeddings are in no budget: test_embedding_memory.test_g_what_fits_is_found_beside_the_embeddings_to_come

Of the stack, and in the folders of what they test:

H. A container cannot compile: tests.operations.test_compose.test_what_is_compiled_lies_in_the_volume
I. Workers share a GPU: tests.service.up.test_several_gpus.test_each_gpu_has_a_worker_and_each_model_its_share
J. What is refused is fetched: tests.worker.model_folder.test_folders_as_found.\
test_another_pipeline_is_refused_before_its_weights_are_fetched

The rest of J, the cost of small kernels, needs a GPU to be measured: bench.gpu.
"""
