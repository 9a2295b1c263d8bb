// Draws a triangle by OpenGL ES 3 without a window, and prints a checksum of what was drawn.
// cc -O1 -o egl egl.c -lEGL -lGLESv2
// It takes the first device of EGL's, whatever display there is, and fails if that is none of NVIDIA's.
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GLES3/gl3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 256 };

static void fail(const char *what) { fprintf(stderr, "%s: EGL %#x\n", what, eglGetError()); exit(1); }

static GLuint shader(GLenum kind, const char *source) {
    GLuint made = glCreateShader(kind);
    glShaderSource(made, 1, &source, 0);
    glCompileShader(made);
    GLint compiled = 0;
    glGetShaderiv(made, GL_COMPILE_STATUS, &compiled);
    if (!compiled) fail("shader");
    return made;
}

int main(void) {
    PFNEGLQUERYDEVICESEXTPROC query = (PFNEGLQUERYDEVICESEXTPROC)eglGetProcAddress("eglQueryDevicesEXT");
    PFNEGLGETPLATFORMDISPLAYEXTPROC display_of = (PFNEGLGETPLATFORMDISPLAYEXTPROC)eglGetProcAddress("eglGetPlatformDisplayEXT");
    EGLDeviceEXT devices[8];
    EGLint count = 0;
    if (!query || !display_of || !query(8, devices, &count) || count == 0) fail("no device");
    EGLDisplay display = display_of(EGL_PLATFORM_DEVICE_EXT, devices[0], 0);
    if (!eglInitialize(display, 0, 0)) fail("eglInitialize");
    EGLint wanted[] = {EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE, EGL_OPENGL_ES3_BIT, EGL_NONE}, found = 0;
    EGLConfig config;
    if (!eglChooseConfig(display, wanted, &config, 1, &found) || !found) fail("eglChooseConfig");
    eglBindAPI(EGL_OPENGL_ES_API);
    EGLint version[] = {EGL_CONTEXT_CLIENT_VERSION, 3, EGL_NONE};
    EGLContext context = eglCreateContext(display, config, EGL_NO_CONTEXT, version);
    if (!eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, context)) fail("eglMakeCurrent");

    const char *renderer = (const char *)glGetString(GL_RENDERER), *vendor = (const char *)glGetString(GL_VENDOR);
    if (!vendor || !strstr(vendor, "NVIDIA")) {
        fprintf(stderr, "it would be drawn by %s\n", renderer);
        return 1;
    }
    GLuint image, frame;
    glGenRenderbuffers(1, &image);
    glBindRenderbuffer(GL_RENDERBUFFER, image);
    glRenderbufferStorage(GL_RENDERBUFFER, GL_RGBA8, SIDE, SIDE);
    glGenFramebuffers(1, &frame);
    glBindFramebuffer(GL_FRAMEBUFFER, frame);
    glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER, image);
    GLuint program = glCreateProgram();
    glAttachShader(program, shader(GL_VERTEX_SHADER, "#version 300 es\nconst vec2 p[3]=vec2[](vec2(-.8,-.7),vec2(.9,-.5),vec2(.1,.8));out vec3 c;"
        "void main(){gl_Position=vec4(p[gl_VertexID],0.,1.);c=vec3(gl_VertexID==0,gl_VertexID==1,gl_VertexID==2);}"));
    glAttachShader(program, shader(GL_FRAGMENT_SHADER, "#version 300 es\nprecision highp float;in vec3 c;out vec4 o;void main(){o=vec4(c,1.);}"));
    glLinkProgram(program);
    glUseProgram(program);
    glViewport(0, 0, SIDE, SIDE);
    glClearColor(.1f, .2f, .3f, 1.f);
    glClear(GL_COLOR_BUFFER_BIT);
    glDrawArrays(GL_TRIANGLES, 0, 3);
    static uint8_t pixels[SIDE * SIDE * 4];
    glReadPixels(0, 0, SIDE, SIDE, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
    if (glGetError()) fail("OpenGL");
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < sizeof pixels; i++) sum = (sum ^ pixels[i]) * 16777619u;
    printf("%s: %08x\n", renderer, sum);
    return 0;
}
