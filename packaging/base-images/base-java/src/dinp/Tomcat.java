package dinp;

import java.lang.management.ManagementFactory;
import java.net.MalformedURLException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Executor;
import org.apache.catalina.Context;
import org.apache.catalina.Engine;
import org.apache.catalina.Lifecycle;
import org.apache.catalina.LifecycleState;
import org.apache.catalina.Service;
import org.apache.catalina.WebResourceRoot.ResourceSetType;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.core.StandardContext;
import org.apache.catalina.startup.Catalina;
import org.apache.catalina.util.ServerInfo;
import org.apache.tomcat.util.threads.ThreadPoolExecutor;

/** Serves the application of server.xml, and ends where it cannot be started. */
public final class Tomcat {
    private static final Path APP = Path.of("/app");
    /** The agent kills after 10 s. */
    private static final long GRACE_MILLIS = 7_500;

    private Tomcat() {}

    public static void main(String[] args) throws Exception {
        Path work = Path.of(System.getProperty("dinp.work"));
        Files.createDirectories(work);
        Path converted = null;
        if (Jakarta.isNeeded(APP)) {
            converted = work.resolve("jakarta");
            Jakarta.convert(APP, converted);
        }

        Catalina catalina = new Catalina();
        catalina.setParentClassLoader(Tomcat.class.getClassLoader());
        catalina.load();
        if (catalina.getServer() == null) {
            System.exit(1);
        }
        Service service = catalina.getServer().findServices()[0];
        Engine engine = service.getContainer();
        StandardContext context = (StandardContext) engine.findChild(engine.getDefaultHost()).findChild("");
        prepare(context, converted);
        // Tomcat itself would go on without the application. The socket is not open yet: nobody sees a server without it.
        on(engine, Lifecycle.AFTER_START_EVENT, () -> {
            if (!context.getState().isAvailable()) {
                System.err.println("dinp-start: Tomcat could not start the application; the reason stands above");
                Runtime.getRuntime().halt(1);
            }
        });
        on(service, Lifecycle.BEFORE_STOP_EVENT, () -> drain(service, context));

        catalina.start();
        for (Connector connector : service.findConnectors()) {
            if (connector.getState() != LifecycleState.STARTED) {
                System.exit(1);
            }
            System.err.printf(Locale.ROOT, "dinp-start: %s answers on port %d, %.1f s after its start%n",
                    ServerInfo.getServerInfo(), connector.getLocalPort(),
                    ManagementFactory.getRuntimeMXBean().getUptime() / 1e3);
        }
        catalina.getServer().await();
    }

    private static void prepare(Context context, Path converted) throws MalformedURLException {
        // Tomcat heeds the application's own context.xml only where it deploys by itself.
        for (Path directory : converted == null ? new Path[] {APP} : new Path[] {APP, converted}) {
            Path settings = directory.resolve("META-INF/context.xml");
            if (Files.exists(settings)) {
                context.setConfigFile(settings.toUri().toURL());
            }
        }
        on(context, Lifecycle.BEFORE_START_EVENT, () -> {
            org.apache.catalina.startup.Tomcat.addDefaultMimeTypeMappings(context);
            if (converted != null) {
                // Not before: context.xml may put other resources in the place of those of server.xml.
                context.getResources().createWebResourceSet(ResourceSetType.PRE, "/", converted.toString(), null, "/");
            }
        });
    }

    /**
     * Takes no new connections, and lets what runs end. Tomcat's own waiting (gracefulStopAwaitMillis) would wait for the
     * router's idle connections, too.
     */
    private static void drain(Service service, StandardContext context) {
        long deadline = System.nanoTime() + GRACE_MILLIS * 1_000_000;
        for (Connector connector : service.findConnectors()) {
            connector.getProtocolHandler().closeServerSocketGraceful();
            Executor executor = connector.getProtocolHandler().getExecutor();
            while (isBusy(executor) && System.nanoTime() < deadline) {
                try {
                    Thread.sleep(20);
                } catch (InterruptedException error) {
                    return;
                }
            }
        }
        // For requests without a thread of their own the context waits; its servlets keep to server.xml.
        context.setUnloadDelay(Math.max((deadline - System.nanoTime()) / 1_000_000, 0));
    }

    private static boolean isBusy(Executor executor) {
        if (!(executor instanceof ThreadPoolExecutor)) {
            return false;
        }
        ThreadPoolExecutor pool = (ThreadPoolExecutor) executor;
        return pool.getActiveCount() > 0 || !pool.getQueue().isEmpty();
    }

    private static void on(Lifecycle of, String type, Runnable action) {
        of.addLifecycleListener(event -> {
            if (event.getType().equals(type)) {
                action.run();
            }
        });
    }
}
