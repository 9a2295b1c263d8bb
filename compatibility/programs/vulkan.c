// Computes and draws by Vulkan without a window, and prints a checksum of each.
// cc -O1 -o vulkan vulkan.c -lvulkan
// Each of the three headers is made of a shader: glslangValidator -V --vn square_comp -o square.comp.h square.comp, and so on.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>
#include "square.comp.h"
#include "triangle.frag.h"
#include "triangle.vert.h"

enum { SIDE = 256, NUMBERS = 4096, BYTES = SIDE * SIDE * 4, NVIDIA = 0x10de };

#define DO(call) do { VkResult r_ = (call); if (r_) { fprintf(stderr, "%s: %d\n", #call, r_); exit(1); } } while (0)

static VkPhysicalDevice gpu;
static VkDevice device;
static VkQueue queue;
static VkCommandBuffer commands;

static VkDeviceMemory memory(VkMemoryRequirements wanted, VkMemoryPropertyFlags flags) {
    VkPhysicalDeviceMemoryProperties all;
    vkGetPhysicalDeviceMemoryProperties(gpu, &all);
    for (uint32_t i = 0; i < all.memoryTypeCount; i++) {
        if (!(wanted.memoryTypeBits & 1u << i) || (all.memoryTypes[i].propertyFlags & flags) != flags) continue;
        VkMemoryAllocateInfo info = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, 0, wanted.size, i};
        VkDeviceMemory made;
        DO(vkAllocateMemory(device, &info, 0, &made));
        return made;
    }
    fprintf(stderr, "no memory of this type\n");
    exit(1);
}

// A buffer that the host sees.
static VkBuffer buffer(VkDeviceSize bytes, VkBufferUsageFlags usage, void **seen) {
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = bytes, .usage = usage};
    VkBuffer made;
    VkMemoryRequirements wanted;
    DO(vkCreateBuffer(device, &info, 0, &made));
    vkGetBufferMemoryRequirements(device, made, &wanted);
    VkDeviceMemory own = memory(wanted, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    DO(vkBindBufferMemory(device, made, own, 0));
    DO(vkMapMemory(device, own, 0, VK_WHOLE_SIZE, 0, seen));
    return made;
}

static VkPipelineShaderStageCreateInfo stage(VkShaderStageFlagBits at, const uint32_t *code, size_t bytes) {
    VkShaderModuleCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = bytes, .pCode = code};
    VkPipelineShaderStageCreateInfo made = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, .stage = at, .pName = "main"};
    DO(vkCreateShaderModule(device, &info, 0, &made.module));
    return made;
}

static void begin(void) {
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    DO(vkBeginCommandBuffer(commands, &info));
}

static void submit(void) {
    DO(vkEndCommandBuffer(commands));
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
    DO(vkQueueSubmit(queue, 1, &info, VK_NULL_HANDLE));
    DO(vkQueueWaitIdle(queue));
    DO(vkResetCommandBuffer(commands, 0));
}

static uint32_t checksum(const void *data, size_t bytes) {
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * 16777619u;
    return sum;
}

static uint32_t compute(void) {
    void *seen;
    VkBuffer numbers = buffer(NUMBERS * 4, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT, &seen);
    for (uint32_t i = 0; i < NUMBERS; i++) ((uint32_t *)seen)[i] = i * 7 + 3;
    VkDescriptorSetLayoutBinding binding = {0, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, 0};
    VkDescriptorSetLayoutCreateInfo set_info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = 1, .pBindings = &binding};
    VkDescriptorSetLayout set_layout;
    DO(vkCreateDescriptorSetLayout(device, &set_info, 0, &set_layout));
    VkPipelineLayoutCreateInfo layout_info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1, .pSetLayouts = &set_layout};
    VkPipelineLayout layout;
    DO(vkCreatePipelineLayout(device, &layout_info, 0, &layout));
    VkComputePipelineCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO, .stage = stage(VK_SHADER_STAGE_COMPUTE_BIT, square_comp, sizeof square_comp), .layout = layout};
    VkPipeline pipeline;
    DO(vkCreateComputePipelines(device, VK_NULL_HANDLE, 1, &info, 0, &pipeline));
    VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1};
    VkDescriptorPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, .maxSets = 1, .poolSizeCount = 1, .pPoolSizes = &size};
    VkDescriptorPool pool;
    DO(vkCreateDescriptorPool(device, &pool_info, 0, &pool));
    VkDescriptorSetAllocateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO, .descriptorPool = pool, .descriptorSetCount = 1, .pSetLayouts = &set_layout};
    VkDescriptorSet bound;
    DO(vkAllocateDescriptorSets(device, &set, &bound));
    VkDescriptorBufferInfo whole = {numbers, 0, VK_WHOLE_SIZE};
    VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = bound, .descriptorCount = 1, .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, .pBufferInfo = &whole};
    vkUpdateDescriptorSets(device, 1, &write, 0, 0);
    begin();
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &bound, 0, 0);
    vkCmdDispatch(commands, NUMBERS / 64, 1, 1);
    submit();
    for (uint32_t i = 0; i < NUMBERS; i++) {
        uint32_t number = i * 7 + 3;
        if (((uint32_t *)seen)[i] != number * number + i) { fprintf(stderr, "number %u is wrong\n", i); exit(1); }
    }
    return checksum(seen, NUMBERS * 4);
}

static uint32_t draw(void) {
    VkImageCreateInfo image_info = {.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO, .imageType = VK_IMAGE_TYPE_2D, .format = VK_FORMAT_R8G8B8A8_UNORM, .extent = {SIDE, SIDE, 1}, .mipLevels = 1, .arrayLayers = 1, .samples = VK_SAMPLE_COUNT_1_BIT, .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT};
    VkImage image;
    VkMemoryRequirements wanted;
    DO(vkCreateImage(device, &image_info, 0, &image));
    vkGetImageMemoryRequirements(device, image, &wanted);
    DO(vkBindImageMemory(device, image, memory(wanted, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT), 0));
    VkImageViewCreateInfo view_info = {.sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO, .image = image, .viewType = VK_IMAGE_VIEW_TYPE_2D, .format = VK_FORMAT_R8G8B8A8_UNORM, .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}};
    VkImageView view;
    DO(vkCreateImageView(device, &view_info, 0, &view));
    VkAttachmentDescription attachment = {.format = VK_FORMAT_R8G8B8A8_UNORM, .samples = VK_SAMPLE_COUNT_1_BIT, .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR, .storeOp = VK_ATTACHMENT_STORE_OP_STORE, .finalLayout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL};
    VkAttachmentReference reference = {0, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    VkSubpassDescription subpass = {.pipelineBindPoint = VK_PIPELINE_BIND_POINT_GRAPHICS, .colorAttachmentCount = 1, .pColorAttachments = &reference};
    VkSubpassDependency after = {0, VK_SUBPASS_EXTERNAL, VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT, VK_ACCESS_TRANSFER_READ_BIT, 0};
    VkRenderPassCreateInfo pass_info = {.sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO, .attachmentCount = 1, .pAttachments = &attachment, .subpassCount = 1, .pSubpasses = &subpass, .dependencyCount = 1, .pDependencies = &after};
    VkRenderPass pass;
    DO(vkCreateRenderPass(device, &pass_info, 0, &pass));
    VkFramebufferCreateInfo frame_info = {.sType = VK_STRUCTURE_TYPE_FRAMEBUFFER_CREATE_INFO, .renderPass = pass, .attachmentCount = 1, .pAttachments = &view, .width = SIDE, .height = SIDE, .layers = 1};
    VkFramebuffer frame;
    DO(vkCreateFramebuffer(device, &frame_info, 0, &frame));
    VkPipelineLayoutCreateInfo layout_info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO};
    VkPipelineLayout layout;
    DO(vkCreatePipelineLayout(device, &layout_info, 0, &layout));
    VkPipelineShaderStageCreateInfo stages[] = {stage(VK_SHADER_STAGE_VERTEX_BIT, triangle_vert, sizeof triangle_vert), stage(VK_SHADER_STAGE_FRAGMENT_BIT, triangle_frag, sizeof triangle_frag)};
    VkPipelineVertexInputStateCreateInfo input = {.sType = VK_STRUCTURE_TYPE_PIPELINE_VERTEX_INPUT_STATE_CREATE_INFO};
    VkPipelineInputAssemblyStateCreateInfo assembly = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INPUT_ASSEMBLY_STATE_CREATE_INFO, .topology = VK_PRIMITIVE_TOPOLOGY_TRIANGLE_LIST};
    VkViewport port = {0, 0, SIDE, SIDE, 0, 1};
    VkRect2D all = {{0, 0}, {SIDE, SIDE}};
    VkPipelineViewportStateCreateInfo ports = {.sType = VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO, .viewportCount = 1, .pViewports = &port, .scissorCount = 1, .pScissors = &all};
    VkPipelineRasterizationStateCreateInfo raster = {.sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO, .lineWidth = 1};
    VkPipelineMultisampleStateCreateInfo samples = {.sType = VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO, .rasterizationSamples = VK_SAMPLE_COUNT_1_BIT};
    VkPipelineColorBlendAttachmentState plain = {.colorWriteMask = 15};
    VkPipelineColorBlendStateCreateInfo blend = {.sType = VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO, .attachmentCount = 1, .pAttachments = &plain};
    VkGraphicsPipelineCreateInfo info = {.sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO, .stageCount = 2, .pStages = stages, .pVertexInputState = &input, .pInputAssemblyState = &assembly, .pViewportState = &ports, .pRasterizationState = &raster, .pMultisampleState = &samples, .pColorBlendState = &blend, .layout = layout, .renderPass = pass};
    VkPipeline pipeline;
    DO(vkCreateGraphicsPipelines(device, VK_NULL_HANDLE, 1, &info, 0, &pipeline));
    void *seen;
    VkBuffer pixels = buffer(BYTES, VK_BUFFER_USAGE_TRANSFER_DST_BIT, &seen);
    VkClearValue clear = {.color = {.float32 = {.1f, .2f, .3f, 1.f}}};
    begin();
    VkRenderPassBeginInfo start = {.sType = VK_STRUCTURE_TYPE_RENDER_PASS_BEGIN_INFO, .renderPass = pass, .framebuffer = frame, .renderArea = all, .clearValueCount = 1, .pClearValues = &clear};
    vkCmdBeginRenderPass(commands, &start, VK_SUBPASS_CONTENTS_INLINE);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline);
    vkCmdDraw(commands, 3, 1, 0, 0);
    vkCmdEndRenderPass(commands);
    VkBufferImageCopy region = {.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, .imageExtent = {SIDE, SIDE, 1}};
    vkCmdCopyImageToBuffer(commands, image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, pixels, 1, &region);
    submit();
    return checksum(seen, BYTES);
}

int main(void) {
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_1};
    VkInstanceCreateInfo instance_info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application};
    VkInstance instance;
    DO(vkCreateInstance(&instance_info, 0, &instance));
    VkPhysicalDevice gpus[16];
    uint32_t count = 16;
    VkResult listed = vkEnumeratePhysicalDevices(instance, &count, gpus);
    VkPhysicalDeviceProperties properties;
    for (uint32_t i = 0; !gpu && (!listed || listed == VK_INCOMPLETE) && i < count; i++) {
        vkGetPhysicalDeviceProperties(gpus[i], &properties);
        if (properties.vendorID == NVIDIA) gpu = gpus[i];
    }
    if (!gpu) { fprintf(stderr, "no GPU of NVIDIA's: %d\n", listed); return 1; }
    float priority = 1;
    // The first family of NVIDIA's draws, computes and copies.
    VkDeviceQueueCreateInfo queue_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
    VkDeviceCreateInfo device_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .queueCreateInfoCount = 1, .pQueueCreateInfos = &queue_info};
    DO(vkCreateDevice(gpu, &device_info, 0, &device));
    vkGetDeviceQueue(device, 0, 0, &queue);
    VkCommandPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT};
    VkCommandPool pool;
    DO(vkCreateCommandPool(device, &pool_info, 0, &pool));
    VkCommandBufferAllocateInfo commands_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = pool, .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = 1};
    DO(vkAllocateCommandBuffers(device, &commands_info, &commands));
    printf("%s: computed %08x, drawn %08x\n", properties.deviceName, compute(), draw());
    return 0;
}
