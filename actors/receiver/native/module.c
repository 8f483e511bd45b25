/* The lane as Python has it: see ../_lane.pyi. */

#include "lane.h"

#include <structmember.h>

static PyObject *lane_turn(Lane *self, PyObject *ways)
{
    self->ways = (int)PyLong_AsLong(ways);
    if (PyErr_Occurred())
        return NULL;
    int outcome = lane_take_turn(self);
    return outcome < 0 ? NULL : PyLong_FromLong(outcome);
}

/* The owner has the object: all of it is in its file then, or nobody wants it. */
static PyObject *lane_settle_file(Lane *self, PyObject *is_wanted)
{
    self->waited = 0;
    if (is_wanted != Py_True)
        lane_drop_stage(self);
    else if (lane_write_out(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The owner is between two objects: begin there. */
static PyObject *lane_enter(Lane *self, PyObject *arguments)
{
    if (!PyArg_ParseTuple(arguments, "dd", &self->quick, &self->amid_since))
        return NULL;
    self->phase = BETWEEN_OBJECTS;
    Py_SETREF(self->part, Py_NewRef(Py_None));
    Py_CLEAR(self->unsent);
    lane_drop_stage(self);
    self->carried = self->at = self->end = 0;
    self->has_begun = self->amid_pdu = 0;
    self->deadline = lane_monotonic() + self->idle_seconds;
    Py_RETURN_NONE;
}

/* The owner has the complete object. */
static PyObject *lane_next_object(Lane *self, PyObject *Py_UNUSED(none))
{
    self->phase = BETWEEN_OBJECTS;
    Py_SETREF(self->part, Py_NewRef(Py_None));
    self->amid_pdu = 0;
    self->deadline = lane_monotonic() + self->idle_seconds;
    Py_RETURN_NONE;
}

static int lane_init(Lane *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"fd", "buffer", "context_id", "longest_pdu", "head", "middle", "sync", "idle_seconds",
                            "pdu_seconds", "patterns", "open_part", "reach", NULL};
    PyObject *head, *middle, *patterns, *open_part, *reach;
    if (self->stored != NULL) {
        PyErr_SetString(PyExc_TypeError, "a lane is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "$iw*bnSSpddOOO", names, &self->fd, &self->buffer,
                                     &self->context_id, &self->longest_pdu, &head, &middle, &self->sync,
                                     &self->idle_seconds, &self->pdu_seconds, &patterns, &open_part, &reach))
        return -1;
    self->head = Py_NewRef(head);
    self->middle = Py_NewRef(middle);
    self->patterns = Py_NewRef(patterns);
    self->open_part = Py_NewRef(open_part);
    self->reach = Py_NewRef(reach);
    self->part = Py_NewRef(Py_None);
    self->file = -1;
    self->stored = PyList_New(0);
    if (self->stored != NULL && self->buffer.len <= LONGEST_COMMAND) {
        PyErr_SetString(PyExc_ValueError, "the buffer is too small");
        return -1;
    }
    return self->stored == NULL ? -1 : 0;
}

static int lane_traverse(Lane *self, visitproc visit, void *arg)
{
    Py_VISIT(self->patterns);
    Py_VISIT(self->open_part);
    Py_VISIT(self->reach);
    Py_VISIT(self->part);
    Py_VISIT(self->stored);
    return 0;
}

static int lane_clear(Lane *self)
{
    Py_CLEAR(self->patterns);
    Py_CLEAR(self->open_part);
    Py_CLEAR(self->reach);
    Py_CLEAR(self->part);
    Py_CLEAR(self->stored);
    return 0;
}

static void lane_dealloc(Lane *self)
{
    PyObject_GC_UnTrack(self);
    lane_clear(self);
    lane_drop_stage(self);
    Py_CLEAR(self->head);
    Py_CLEAR(self->middle);
    Py_CLEAR(self->unsent);
    for (size_t i = 0; i < sizeof self->pattern / sizeof *self->pattern; i++)
        Py_CLEAR(self->pattern[i]);
    if (self->buffer.obj != NULL)
        PyBuffer_Release(&self->buffer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *lane_get_sop_instance(Lane *self, void *Py_UNUSED(closure))
{
    return PyBytes_FromStringAndSize(self->uid, self->uid_length);
}

/* What came, and was not walked. */
static PyObject *lane_get_rest(Lane *self, void *Py_UNUSED(closure))
{
    if (self->carried)
        return PyBytes_FromStringAndSize((const char *)self->carry, self->carried);
    return PyBytes_FromStringAndSize((const char *)bytes_at(self, self->at), self->end - self->at);
}

static PyMemberDef lane_members[] = {
    {"quick", T_DOUBLE, offsetof(Lane, quick), READONLY, NULL},
    {"amid_since", T_DOUBLE, offsetof(Lane, amid_since), READONLY, NULL},
    {"waited", T_DOUBLE, offsetof(Lane, waited), READONLY, NULL},
    {"deadline", T_DOUBLE, offsetof(Lane, deadline), READONLY, NULL},
    {"amid_pdu", T_BOOL, offsetof(Lane, amid_pdu), READONLY, NULL},
    {"phase", T_INT, offsetof(Lane, phase), READONLY, NULL},
    {"part", T_OBJECT, offsetof(Lane, part), READONLY, NULL},
    {"size", T_PYSSIZET, offsetof(Lane, size), READONLY, NULL},
    {"message_id", T_USHORT, offsetof(Lane, message_id), READONLY, NULL},
    {"fragment_left", T_PYSSIZET, offsetof(Lane, fragment_left), READONLY, NULL},
    {"fragment_bytes", T_PYSSIZET, offsetof(Lane, fragment_bytes), READONLY, NULL},
    {"is_last", T_BOOL, offsetof(Lane, is_last), READONLY, NULL},
    {"has_begun", T_BOOL, offsetof(Lane, has_begun), READONLY, NULL},
    {"error", T_INT, offsetof(Lane, error), READONLY, NULL},
    {"stored", T_OBJECT, offsetof(Lane, stored), READONLY, NULL},
    {"unsent", T_OBJECT, offsetof(Lane, unsent), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef lane_properties[] = {
    {"sop_instance", (getter)lane_get_sop_instance, NULL, NULL, NULL},
    {"rest", (getter)lane_get_rest, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef lane_methods[] = {
    {"enter", (PyCFunction)lane_enter, METH_VARARGS, NULL},
    {"turn", (PyCFunction)lane_turn, METH_O, NULL},
    {"settle_file", (PyCFunction)lane_settle_file, METH_O, NULL},
    {"next_object", (PyCFunction)lane_next_object, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject lane_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "actors.receiver._lane.Lane",
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)lane_init,
    .tp_dealloc = (destructor)lane_dealloc,
    .tp_traverse = (traverseproc)lane_traverse,
    .tp_clear = (inquiry)lane_clear,
    .tp_methods = lane_methods,
    .tp_members = lane_members,
    .tp_getset = lane_properties,
};

static struct PyModuleDef lane_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "actors.receiver._lane",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__lane(void)
{
    PyObject *module = PyModule_Create(&lane_module);
    if (module == NULL)
        return NULL;
    if (PyModule_AddType(module, &lane_type) < 0
        || PyModule_AddIntConstant(module, "DIRECT", DIRECT) < 0
        || PyModule_AddIntConstant(module, "AT_ONCE", AT_ONCE) < 0
        || PyModule_AddIntConstant(module, "WAITING", WAITING) < 0
        || PyModule_AddIntConstant(module, "STORED", STORED) < 0
        || PyModule_AddIntConstant(module, "COMPLETE", COMPLETE) < 0
        || PyModule_AddIntConstant(module, "UNUSUAL", UNUSUAL) < 0
        || PyModule_AddIntConstant(module, "LOST", LOST) < 0
        || PyModule_AddIntConstant(module, "BETWEEN_OBJECTS", BETWEEN_OBJECTS) < 0
        || PyModule_AddIntConstant(module, "BETWEEN_FRAGMENTS", BETWEEN_FRAGMENTS) < 0
        || PyModule_AddIntConstant(module, "IN_FRAGMENT", IN_FRAGMENT) < 0
        || PyModule_AddIntConstant(module, "DATASET_ENDED", DATASET_ENDED) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
